/** Every command and every script of the README and the docs, as a reader would copy it. */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import t from 'tap';
import { root } from '../../scripts/files.mjs';
import { startHub, tinyFiles } from '../helpers/hub.ts';
import { commandsOf, scriptsOf } from '../helpers/samples.ts';
import { isFull } from '../helpers/scale.ts';
import { spawnTied } from '../helpers/tied-process.ts';

const read = (file: string) => readFileSync(join(root, file), 'utf8');
const documents = ['README.md', ...readdirSync(join(root, 'docs')).flatMap((name) => (name.endsWith('.md') ? [`docs/${name}`] : []))];

/** Not run, by their beginnings, with the reason. */
const notRun: readonly (readonly [command: string, reason: string])[] = [
  ['npm start', 'installs and builds; the tests do so before they start'],
  ['npm test', 'this is it'],
  ['NDS_CUDA=off npm start', 'builds the checkout that the other tests run'],
  ['npx ndsrun --nproc-per-node=auto script.ts', 'the same as without the option where there is no GPU'],
  ['scp token node1:', 'needs another host'],
  ['npx ndsrun --nnodes=2 --node-rank=0', 'waits for a second host; test/cluster runs such jobs'],
  ['npx ndsrun --nnodes=2 --node-rank=1', 'waits for a first host'],
  ['npx ndsrun build --cuda', 'needs nvcc; commands.test.ts runs its refusal'],
  ['node --import tsx test/bench/cluster-latency.ts', 'needs namespaces, and minutes'],
  ['npx ndsrun bench latency --shape qwen3-0.6b', 'minutes, with 1.2 GB of weights'],
  ['NDS_ISA=avx512_bf16 npx ndsrun bench latency --shape qwen3-0.6b', 'minutes, with 1.2 GB of weights'],
  ['NDS_ISA=avx2 npm run bench:peers', "needs another project's program; test/bench/peers.test.ts runs it without"],
  ['npm run bench:peers', "needs another project's program; test/bench/peers.test.ts runs it without"],
  ['linear_bench', 'a program to be built from test/bench/native'],
  ['node scripts/draw-trace.mjs', 'replaces a picture of the documents; draw-trace.test.ts runs it'],
  ['npx ndsrun bench accuracy SmolLM2-135M', 'a model of 135M parameters'],
  ['npx ndsrun bench spec --target SmolLM2-135M', 'a model and a text of 135M parameters'],
];

/** Take longer than a few seconds. */
const slow = [/^npx ndsrun bench/, / test\/bench\//];

/**
 * A folder as a reader has it: the examples of a checkout, the package installed, and the models that samples name. The
 * last are copies of a small one, with a chat template.
 */
function makeProject(): string {
  const folder = mkdtempSync(join(realpathSync(tmpdir()), 'samples-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  for (const name of ['examples', 'scripts', 'test']) symlinkSync(join(root, name), join(folder, name));
  mkdirSync(join(folder, 'node_modules'));
  symlinkSync(root, join(folder, 'node_modules', 'nano-dist-spec'));
  mkdirSync(join(folder, 'bin'));
  writeFileSync(join(folder, 'bin', 'npx'), `#!/bin/sh\nshift\nexec '${process.execPath}' '${join(root, 'bin', 'ndsrun.js')}' "$@"\n`, {
    mode: 0o755,
  });
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'samples', private: true, type: 'module' }));
  const chatModel = join(folder, 'path', 'to', 'Qwen3-0.6B');
  cpSync(join(root, 'examples', 'models', 'story-180k'), chatModel, { recursive: true });
  writeFileSync(join(chatModel, 'chat_template.jinja'), '{% for message in messages %}{{ message.content }}\n{% endfor %}');
  const [firstScript] = scriptsOf(read('README.md'));
  writeFileSync(join(folder, 'story.mts'), firstScript?.text ?? '');
  return folder;
}

const project = makeProject();
// The repositories that samples name, on loopback.
const hub = await startHub(t);
hub.repos['Qwen/Qwen3-0.6B'] = { files: tinyFiles(), commit: 'a'.repeat(40) };

/** @returns the exit code and the end of the output. */
function run(command: string): Promise<{ code: number | null; output: string }> {
  const { NODE_OPTIONS: _, ...env } = process.env;
  const path = `${join(project, 'bin')}:${env['PATH']}`;
  return new Promise((resolve, reject) => {
    const child = spawnTied('sh', ['-c', command], {
      cwd: project,
      env: { ...env, PATH: path, HOME: project, HF_HOME: join(project, 'hf'), HF_ENDPOINT: hub.url },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (data: Buffer) => (output += data));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, output: output.slice(-4000) }));
  });
}

const commands = [...new Set(documents.flatMap((file) => commandsOf(read(file))))];

t.test('commands that are not run are still in the documents', async (t) => {
  for (const [start] of notRun)
    t.ok(
      commands.some((command) => command.startsWith(start)),
      start,
    );
});

t.test('commands', async (t) => {
  for (const command of commands) {
    const reason = notRun.find(([start]) => command.startsWith(start))?.[1];
    if (reason !== undefined) t.pass(command, { skip: reason });
    else if (!isFull && slow.some((pattern) => pattern.test(command))) t.pass(command, { skip: 'in a full run' });
    else {
      const { code, output } = await run(command);
      if (!t.equal(code, 0, command)) t.comment(output);
    }
  }
});

t.test('scripts', async (t) => {
  for (const file of documents) {
    for (const { line, text } of scriptsOf(read(file))) {
      const script = `${basename(file, '.md')}-${line}.mts`;
      writeFileSync(join(project, script), text);
      const { code, output } = await run(`npx ndsrun ${script}`);
      if (!t.equal(code, 0, `${file}:${line}`)) t.comment(output);
    }
  }
});
