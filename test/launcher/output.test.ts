/** The output of ranks on the console and in files. */
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { executable, fixture, ndsrun, Running } from '../helpers/launcher.ts';

const write = fixture('write.ts');

/** Paths of all files below a folder, relative to it and sorted. */
function filesBelow(folder: string): string[] {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  return names.filter((name) => statSync(join(folder, name)).isFile()).sort();
}

t.test('several ranks: whole lines, each with its rank', async (t) => {
  const { stdout, stderr } = await ndsrun(['--nproc-per-node=2', write, '0:a\\nb\\n', '1:c\\n', '1:!d\\n', '0:no newline']);
  t.same(stdout.split('\n').sort(), ['', '[rank 0] a', '[rank 0] b', '[rank 0] no newline', '[rank 1] c']);
  t.equal(stderr, '[rank 1] d\n');
});

t.test('one rank: its bytes as they are', async (t) => {
  const { stdout, stderr } = await ndsrun(['--nproc-per-node=1', write, '0:a\\nb', '0:!c']);
  t.same([stdout, stderr], ['a\nb', 'c']);
});

t.test('a partial line is shown before its newline comes', async (t) => {
  const running = new Running(['--nproc-per-node=2', '--no-node', 'sh', '-c', '[ $RANK = 1 ] || { printf thinking; sleep 1000; }']);
  await running.printed(/^\[rank 0\] thinking$/m);
  running.child.kill('SIGTERM');
  t.equal((await running.ended()).code, 0);
});

t.test('--log-dir writes a file for every stream of every rank', async (t) => {
  const dir = t.testdir();
  const { stdout, stderr } = await ndsrun([
    '--nproc-per-node=2',
    '--log-dir',
    dir,
    '--rdzv-id=job',
    write,
    '0:zero\\n',
    '1:one\\n',
    '1:!error\\n',
  ]);
  t.same(stdout.split('\n').sort(), ['', '[rank 0] zero', '[rank 1] one'], 'the console has it too');
  const files = filesBelow(dir);
  t.match(files[0], /^job_\w+\/attempt_0\/0\/stderr\.log$/);
  const contents = files.map((file) => [file.split('/').slice(1).join('/'), readFileSync(join(dir, file), 'utf8')]);
  t.same(contents, [
    ['attempt_0/0/stderr.log', ''],
    ['attempt_0/0/stdout.log', 'zero\n'],
    ['attempt_0/1/stderr.log', 'error\n'],
    ['attempt_0/1/stdout.log', 'one\n'],
  ]);
  t.match(stderr, /\[ndsrun\] logs are in .*job_/);
});

t.test('--redirects, --tee and --local-ranks-filter choose what the console shows', async (t) => {
  const args = ['--nproc-per-node=2', '--log-dir', t.testdir()];
  const lines = ['0:zero\\n', '0:!zero error\\n', '1:one\\n', '1:!one error\\n'];
  const shown = async (...options: string[]): Promise<string[]> => {
    const { stdout, stderr } = await ndsrun([...args, ...options, write, ...lines]);
    return `${stdout}${stderr}`
      .split('\n')
      .filter((line) => line.startsWith('[rank'))
      .sort();
  };
  t.same(await shown('--redirects=1'), ['[rank 0] zero error', '[rank 1] one error']);
  t.same(await shown('-r', '0:3,1:2'), ['[rank 1] one']);
  t.same(await shown('-r', '3', '-t', '0:1'), ['[rank 0] zero'], 'tee is stronger');
  t.same(await shown('--local-ranks-filter=1'), ['[rank 1] one', '[rank 1] one error']);
});

t.test('--log-line-prefix-template', async (t) => {
  const template = '<${role_name} ${rank}/${local_rank}/${other}>';
  const { stdout } = await ndsrun(['--nproc-per-node=2', '--log-line-prefix-template', template, write, '1:x\\n']);
  t.equal(stdout, '<default 1/1/${other}>x\n');
});

t.test('a console that nobody reads stalls no rank, and loses nothing', async (t) => {
  const mebibytes = 12;
  const done = join(t.testdir(), 'done');
  const running = new Running(['--nproc-per-node=2', fixture('flood.ts'), String(mebibytes), done]);
  running.child.stdout?.pause();
  // The output exceeds pipes and memory: both ranks can only end if it is spooled.
  while (!existsSync(`${done}-0`) || !existsSync(`${done}-1`)) await new Promise((resolve) => setTimeout(resolve, 20));
  running.child.stdout?.resume();
  const { code, stdout } = await running.ended();
  t.equal(code, 0);
  // On a slow machine a line may be split in two, each part with a prefix.
  t.equal(stdout.replaceAll(/[^x]/g, '').length, 2 * mebibytes * 1024 * 1023);
  t.notMatch(stdout, /dropped/);
  t.same(running.leftovers(), []);
});

/** Runs ndsrun on a pseudo-terminal of 100 columns, with util-linux' `script`. */
async function onTerminal(...args: string[]): Promise<string> {
  const command = [process.execPath, executable, ...args].map((arg) => `'${arg}'`).join(' ');
  // Colour depends on many variables, CI among them.
  const inner = `stty cols 100 rows 30; exec env -i PATH="$PATH" HOME="$HOME" TERM=xterm-256color ${command}`;
  const { stdout } = await promisify(execFile)('script', ['-qec', inner, '/dev/null']);
  return stdout.replaceAll('\r', '');
}

const hasScript = spawnSync('script', ['--version'], { encoding: 'utf8' }).stdout?.includes('util-linux') ?? false;

t.test('a terminal', { skip: hasScript ? false : "util-linux' script is not here" }, async (t) => {
  const tell = 'test -t 1 && test -t 2 && stty size <&1; echo "color $FORCE_COLOR columns $COLUMNS"';
  const shell = ['--no-node', 'sh', '-c', tell];
  t.equal(await onTerminal('--nproc-per-node=1', ...shell), '30 100\ncolor  columns \n', 'a single rank has it');
  const lines = (await onTerminal('--nproc-per-node=2', ...shell)).split('\n').filter((line) => line !== '');
  t.same(lines.sort(), ['[rank 0] color 2 columns 91', '[rank 1] color 2 columns 91']);
  const bare = await onTerminal('--nproc-per-node=2', '--log-line-prefix-template=', ...shell);
  t.equal(bare, 'color 2 columns 100\ncolor 2 columns 100\n');
});
