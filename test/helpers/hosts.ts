/**
 * Several hosts on one machine: Linux namespaces with an address, a host name, `/dev/shm` and a temporary folder each,
 * joined by a switch. Namespaces have no names: they end with their processes, which end with the test's process.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { buildDelaySwitch } from './delay-switch.ts';
import { describeProcesses, leftAfter, markedProcesses, newMark } from './leaks.ts';

/** Where a process is started, other than beside the test. */
export interface Place {
  /** Command that runs another one there, in a working directory. */
  enter(cwd: string): readonly string[];
  /** Its temporary folder as processes there see it. */
  readonly tmp: string;
  readonly mark: Readonly<Record<string, string>>;
}

/** A place of its own in the network. */
export interface Host extends Place {
  readonly name: string;
  readonly address: string;
  /** Path by which the test sees a path of the host. */
  fromHere(path: string): string;
}

const network = '10.77.0';
/** Covered in each host by its own folder in memory. */
const privateFolders = { tmp: '/mnt', shm: '/dev/shm' };
const hasRoot = process.getuid?.() === 0;
/** Without root, a user namespace in which we are root. */
const newWorld = ['unshare', ...(hasRoot ? [] : ['--user', '--map-root-user']), '--net', '--mount', '--uts'];

/** What a namespace's first process runs: it stays until its standard input ends. */
const fabricScript = 'ip link add br0 type bridge && ip link set br0 up && echo up && exec cat';
const hostScript = `
mount -t tmpfs -o mode=1777 none ${privateFolders.tmp} && mount -t tmpfs -o mode=1777 none ${privateFolders.shm} &&
echo "$3" >${privateFolders.tmp}/hosts && mount --bind ${privateFolders.tmp}/hosts /etc/hosts && hostname "$1" && ip link set lo up && echo mounted && read -r plugged &&
ip address add "$2/24" dev eth0 && ip link set eth0 up && echo up && exec cat`;

/** Why hosts cannot be made here; null where they can. */
export const noHosts = whyNoHosts();
/** Options of a test that needs hosts. */
export const needsHosts = { skip: noHosts ?? false };

function whyNoHosts(): string | null {
  if (process.platform !== 'linux') return 'hosts are Linux namespaces';
  for (const program of ['unshare', 'nsenter', 'ip', 'mount', 'hostname']) {
    if (spawnSync('sh', ['-c', `command -v ${program}`]).status !== 0) return `hosts need ${program}, which is not installed`;
  }
  const probe = `ip link add br0 type bridge && ip link add h0 type veth peer name e0 && mount -t tmpfs none ${privateFolders.tmp}`;
  const [command = '', ...args] = newWorld;
  const { status, stderr } = spawnSync(command, [...args, 'sh', '-c', probe], { encoding: 'utf8' });
  return status === 0 ? null : `hosts cannot be made: ${stderr.trim()}`;
}

/** The first process of a namespace. */
class Holder {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor([command = '', ...args]: readonly string[]) {
    this.#child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#lines = createInterface({ input: this.#child.stdout as Readable })[Symbol.asyncIterator]();
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  async says(line: string): Promise<void> {
    const { value } = await this.#lines.next();
    if (value !== line) throw new Error(`Expected a namespace to say ${line} but received ${value}`);
  }

  tell(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.stdin?.end();
    await once(this.#child, 'exit');
  }
}

function entering(pid: number, ...more: readonly string[]): string[] {
  return ['nsenter', `--target=${pid}`, ...(hasRoot ? [] : ['--user', '--preserve-credentials']), '--net', '--mount', '--uts', ...more];
}

const nameOf = (index: number) => `host-${index}`;
const addressOf = (index: number) => `${network}.${index + 1}`;

/** `/etc/hosts` of all hosts. */
function nameTable(numHosts: number): string {
  const lines = Array.from({ length: numHosts }, (_, i) => `${addressOf(i)} ${nameOf(i)}`);
  return ['127.0.0.1 localhost', ...lines].join('\n');
}

class NamespaceHost implements Host {
  readonly name: string;
  readonly address: string;
  readonly tmp = privateFolders.tmp;
  readonly mark: Readonly<Record<string, string>>;
  readonly holder: Holder;

  constructor(index: number, numHosts: number, fabric: Holder, mark: Readonly<Record<string, string>>) {
    this.name = nameOf(index);
    this.address = addressOf(index);
    this.mark = mark;
    // A host's namespaces belong to the user namespace of the fabric.
    const inside = hasRoot ? [] : entering(fabric.pid);
    const script = ['sh', '-c', hostScript, 'sh', this.name, this.address, nameTable(numHosts)];
    this.holder = new Holder([...inside, 'unshare', '--net', '--mount', '--uts', ...script]);
  }

  enter(cwd: string): string[] {
    return entering(this.holder.pid, 'env', '-C', cwd);
  }

  fromHere(path: string): string {
    return join('/proc', String(this.holder.pid), 'root', path);
  }
}

export class Hosts {
  readonly mark = newMark();
  readonly #fabric: Holder;
  readonly #hosts: NamespaceHost[] = [];
  #delaySwitch: Holder | null = null;

  private constructor() {
    this.#fabric = new Holder([...newWorld, 'sh', '-c', fabricScript]);
  }

  /**
   * Opens hosts 0 … numHosts - 1. With a delay, each frame reaches the others `delayMs` later, by a switch of our own
   * between TAP devices; else by the kernel's, at once.
   */
  static async open(numHosts: number, delayMs: number | null = null): Promise<Hosts> {
    const hosts = new Hosts();
    try {
      await hosts.#connect(numHosts, delayMs);
      return hosts;
    } catch (error) {
      await hosts.close();
      throw error;
    }
  }

  async #connect(numHosts: number, delayMs: number | null): Promise<void> {
    await this.#fabric.says('up');
    for (let i = 0; i < numHosts; i++) this.#hosts.push(new NamespaceHost(i, numHosts, this.#fabric, this.mark));
    const holders = this.#hosts.map(({ holder }) => holder);
    await Promise.all(holders.map((holder) => holder.says('mounted')));
    if (delayMs === null)
      holders.forEach(({ pid }, i) => this.#link(`add h${i} type veth peer name eth0 netns ${pid}`, `set h${i} master br0 up`));
    else {
      this.#delaySwitch = new Holder([
        buildDelaySwitch(),
        String(Math.round(delayMs * 1000)),
        ...holders.map(({ pid }) => `/proc/${pid}/ns/net`),
      ]);
      await this.#delaySwitch.says('up');
    }
    for (const holder of holders) holder.tell('plugged');
    await Promise.all(holders.map((holder) => holder.says('up')));
    this.#hosts.forEach((host) => shareLoaderCache(host));
  }

  get(index: number): Host {
    const host = this.#hosts[index];
    if (host === undefined) throw new RangeError(`Expected a host below ${this.#hosts.length} but received ${index}`);
    return host;
  }

  get length(): number {
    return this.#hosts.length;
  }

  /** Cuts a host off: frames to and from it are lost in the switch, and no device says so. */
  cut(index: number): void {
    this.#link(`set h${index} nomaster`);
  }

  mend(index: number): void {
    this.#link(`set h${index} master br0`);
  }

  /** Covers a file or folder on one host, for what is started there later. */
  cover(index: number, path: string, by: string): void {
    const [command = '', ...args] = entering((this.get(index) as NamespaceHost).holder.pid, 'mount', '--bind', by, path);
    const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' });
    if (status !== 0) throw new Error(stderr);
  }

  #link(...commands: readonly string[]): void {
    const [command = '', ...args] = entering(this.#fabric.pid, 'ip', '-batch', '-');
    const input = commands.map((line) => `link ${line}\n`).join('');
    const { status, stderr } = spawnSync(command, args, { input, encoding: 'utf8' });
    if (status !== 0) throw new Error(`${input}${stderr}`);
  }

  /** `ADDRESS:PORT` of all TCP sockets that listen on a host. */
  listeners(index: number): string[] {
    const { pid } = (this.get(index) as NamespaceHost).holder;
    return ['tcp', 'tcp6'].flatMap((name) => listenersOf(readFileSync(`/proc/${pid}/net/${name}`, 'utf8')));
  }

  /** Processes, files, named sockets and listeners that are left, once none are or `timeoutMs` have passed. */
  leaks(timeoutMs = 10_000): Promise<string[]> {
    return leftAfter(() => this.#leaks(), timeoutMs);
  }

  #leaks(): string[] {
    const perHost = this.#hosts.flatMap((host, i) => {
      const files = [host.tmp, privateFolders.shm].flatMap((folder) =>
        readdirSync(host.fromHere(folder))
          .filter((name) => name.startsWith('nds'))
          .map((name) => `${host.name}:${folder}/${name}`),
      );
      return [...files, ...this.listeners(i).map((address) => `${host.name} listens at ${address}`)];
    });
    return [...describeProcesses(markedProcesses(this.mark)), ...perHost];
  }

  /** Ends everything that runs on the hosts, and the hosts. */
  async close(): Promise<void> {
    for (const pid of markedProcesses(this.mark)) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended.
      }
    }
    await Promise.all([...this.#hosts.map(({ holder }) => holder), this.#delaySwitch, this.#fabric].map((holder) => holder?.end()));
  }
}

/** The TypeScript loader's cache is that of the tests. */
function shareLoaderCache(host: Host): void {
  const cache = `tsx-${process.getuid?.()}`;
  mkdirSync(join(tmpdir(), cache), { recursive: true });
  symlinkSync(join(tmpdir(), cache), host.fromHere(join(host.tmp, cache)));
}

/** Of `/proc/net/tcp` or `tcp6`: addresses in state LISTEN, in the kernel's hexadecimal words turned around. */
export function listenersOf(table: string): string[] {
  return table
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter(([, , , state]) => state === '0A')
    .map(([, local = '']) => {
      const [words = '', port = ''] = local.split(':');
      const bytes = (words.match(/.{8}/g) ?? []).flatMap((word) => (word.match(/../g) ?? []).reverse());
      const address = bytes.length === 4 ? bytes.map((byte) => Number.parseInt(byte, 16)).join('.') : `[${bytes.join('')}]`;
      return `${address}:${Number.parseInt(port, 16)}`;
    });
}
