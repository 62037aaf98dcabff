/** The hosts that the tests of many nodes run on: their own network, name, shared memory and temporary folder. */
import { type ChildProcess, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Host, Hosts, listenersOf, needsHosts } from '../helpers/hosts.ts';
import { fixture } from '../helpers/launcher.ts';
import { leftAfter } from '../helpers/leaks.ts';
import { spawnTied } from '../helpers/tied-process.ts';

async function open(t: Test, numHosts: number, delayMs: number | null = null): Promise<Hosts> {
  const hosts = await Hosts.open(numHosts, delayMs);
  t.teardown(() => hosts.close());
  return hosts;
}

/** Runs a program of a few lines in Node on a host. */
function start(host: Host, program: string, ...args: string[]): ChildProcess {
  const [command = '', ...rest] = host.enter('/');
  const env = { PATH: process.env['PATH'], ...host.mark };
  return spawnTied(command, [...rest, process.execPath, '-e', program, ...args], { env, stdio: ['ignore', 'pipe', 'inherit'] });
}

async function firstLine(child: ChildProcess): Promise<string> {
  const [data] = await once(child.stdout as NodeJS.ReadableStream, 'data');
  return String(data).trim();
}

/** Echoes at port 7 of its address. */
const echo = `
require('node:net').createServer((socket) => socket.pipe(socket)).listen(7, process.argv[1], () => console.log('listens'));`;
/** The shortest of 20 round trips in milliseconds; each round trip that the network loses is sent again by TCP. */
const measure = `
const socket = require('node:net').connect({ host: process.argv[1], port: 7, noDelay: true }, async () => {
  let shortest = Infinity;
  for (let i = 0; i < 20; i++) {
    const start = performance.now();
    socket.write('x');
    await require('node:events').once(socket, 'data');
    shortest = Math.min(shortest, performance.now() - start);
  }
  console.log(shortest);
  process.exit();
});`;

t.test('a host has its own name, address, shared memory and temporary folder', needsHosts, async (t) => {
  const hosts = await open(t, 2);
  const [command = '', ...args] = hosts.get(1).enter('/usr');
  const program = 'hostname; pwd; ls /dev/shm /mnt; ip -brief address show eth0; touch /dev/shm/nds-x /mnt/nds-y';
  const { stdout } = spawnSync(command, [...args, 'sh', '-c', program], { encoding: 'utf8' });
  t.match(stdout, /^host-1\n\/usr\n\/dev\/shm:\n\n\/mnt:\nhosts\ntsx-\d+\neth0\S* +UP +10\.77\.0\.2\/24/);
  t.same(
    readdirSync(hosts.get(0).fromHere('/mnt')).filter((name) => name.startsWith('nds')),
    [],
  );
  const ours = ['/dev/shm', '/mnt'].flatMap((folder) => readdirSync(folder)).filter((name) => /^nds-[xy]$/.test(name));
  t.same(ours, [], 'nor has this machine');
});

t.test('what is left on a host is found: processes, files, listeners', needsHosts, async (t) => {
  const hosts = await open(t, 2);
  const listening = start(hosts.get(0), echo, hosts.get(0).address);
  t.equal(await firstLine(listening), 'listens');
  writeFileSync(hosts.get(1).fromHere('/dev/shm/nds-left'), '');
  t.match(await hosts.leaks(0), [/^process \d+: .*node -e/, 'host-0 listens at 10.77.0.1:7', 'host-1:/dev/shm/nds-left']);
});

t.test('addresses of listeners', async (t) => {
  const table = `  sl  local_address rem_address   st tx_queue
   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000
   1: 01004D0A:0007 02004D0A:9C40 01 00000000:00000000
   2: 00000000:0016 00000000:0000 0A 00000000:00000000
   3: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000
`;
  t.same(listenersOf(table), ['127.0.0.1:3306', '0.0.0.0:22', `[${'0'.repeat(32)}]:8080`]);
});

t.test('a link that was cut loses what is sent, and carries it once mended', needsHosts, async (t) => {
  const hosts = await open(t, 2);
  t.equal(await firstLine(start(hosts.get(0), echo, hosts.get(0).address)), 'listens');
  hosts.cut(1);
  const measuring = start(hosts.get(1), measure, hosts.get(0).address);
  const line = firstLine(measuring);
  const isLost = await Promise.race([line.then(() => false), new Promise((resolve) => setTimeout(resolve, 300, true))]);
  t.ok(isLost);
  hosts.mend(1);
  t.ok(Number(await line) >= 0);
});

const hasTap = (() => {
  try {
    accessSync('/dev/net/tun', constants.W_OK);
    return true;
  } catch {
    return false;
  }
})();

t.test('a switch that delays frames', { skip: needsHosts.skip || (!hasTap && 'needs /dev/net/tun') }, async (t) => {
  for (const delayMs of [0, 5]) {
    const hosts = await open(t, 3, delayMs);
    t.equal(await firstLine(start(hosts.get(0), echo, hosts.get(0).address)), 'listens');
    const roundTripMs = Number(await firstLine(start(hosts.get(2), measure, hosts.get(0).address)));
    t.ok(roundTripMs >= 2 * delayMs, `${roundTripMs} ms with ${delayMs} ms each way`);
  }
});

t.test('a test that is killed leaves no host', needsHosts, async (t) => {
  const args = ['-u', 'NODE_OPTIONS', process.execPath, fixture('open-hosts.ts')];
  const parent = spawnTied('env', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const spaces = (await firstLine(parent)).split(' ');
  t.equal(spaces.length, 3);
  const living = () => spaces.filter((space) => netNamespaces().has(space));
  t.same(living(), spaces);
  parent.kill('SIGKILL');
  t.same(await leftAfter(living, 60_000), []);
});

/** Network namespaces of all processes. */
function netNamespaces(): Set<string> {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return new Set(
    pids.flatMap((pid) => {
      try {
        return [readlinkSync(join('/proc', pid, 'ns/net'))];
      } catch {
        return [];
      }
    }),
  );
}
