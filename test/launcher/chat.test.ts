/** `ndsrun chat` from a pipe and, where the system's `script` makes one, on a terminal. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { chatModel } from '../helpers/chat-model.ts';
import { executable, ndsrun, Running } from '../helpers/launcher.ts';
import { spawnTied } from '../helpers/tied-process.ts';

const model = chatModel(t);
const [green, plainColor] = ['\u001b[32m', '\u001b[39m'];
const greedy = ['--temperature=0', '--max-tokens=8'];
const chat = (input: string, ...args: string[]) => ndsrun(['chat', model, ...greedy, ...args], { input });

t.test('lines of a pipe are messages and commands, on any number of ranks', async (t) => {
  const saved = join(t.testdir(), 'saved.json');
  const script = ['A dog', '', 'And?', `/save ${saved}`, '/set max_tokens 3', 'Then?', '/stats', '/reset', 'A dog'].join('\n');
  const alone = await chat(script, '--nproc-per-node=1', '--system=A story.');
  t.equal(alone.code, 0, alone.stderr);
  const lines = alone.stdout.split('\n');
  t.match(alone.stdout, /\nmax-tokens 3\n.+\nmessages answered: 3\ncontext: \d+ of 1024 tokens\ngenerated: 19 tokens, [\d.]+ tokens\/s\n/);
  t.match(
    alone.stderr,
    /^8 tokens, first after [\d.]+ s, then [\d.]+ tokens\/s\nthe answer was cut: max-tokens is 8 \(\/set max-tokens N\)\n/,
  );
  const messages = JSON.parse(readFileSync(saved, 'utf8')) as { role: string; content: string }[];
  t.same(
    messages.map(({ role }) => role),
    ['system', 'user', 'assistant', 'user', 'assistant'],
  );
  t.equal(messages[2]?.content, lines[0]);
  const shared = await chat(script, '--nproc-per-node=2', '--system=A story.', '--quiet');
  const withoutRates = (text: string) => text.replace(/, [\d.]+ tokens\/s/, '');
  t.same([withoutRates(shared.stdout), shared.stderr], [withoutRates(alone.stdout), '']);
  const loaded = await chat(`/load ${saved}\n/set max-tokens 3\nThen?`, '--quiet');
  t.equal(loaded.stdout.split('\n')[1], lines[3], 'a conversation goes on from its file');
});

t.test('messages of several lines', async (t) => {
  const { stdout } = await chat('"""\nA\ndog\n"""\n', '--quiet');
  t.equal((await chat('A\\\ndog', '--quiet')).stdout, stdout);
});

t.test("a longer answer goes up to the model's end or the context", async (t) => {
  const { code, stderr } = await ndsrun(['chat', model, '--temperature=0', '--max-model-len=48'], { input: 'A dog\n' });
  t.equal(code, 0);
  t.match(stderr, /\nthe answer was cut: the context is full \(\/reset begins a new conversation\)\n$/);
});

t.test('drafts are counted and, on request, green', async (t) => {
  const speculation = ['--speculative-config={"method":"ngram"}', '--tint-drafts', '--max-tokens=60', '--temperature=0'];
  const run = (env: NodeJS.ProcessEnv) => ndsrun(['chat', model, ...speculation], { input: 'A dog and a dog and a dog\n', env });
  const tinted = await run({ FORCE_COLOR: '1', NO_COLOR: '' });
  t.match(tinted.stderr, /tokens\/s; (mean acceptance length [\d.]+, \d+ of \d+ drafts accepted|nothing drafted)/);
  t.match(tinted.stdout, green);
  const plain = await run({ FORCE_COLOR: '1', NO_COLOR: '1' });
  t.equal(plain.stdout, tinted.stdout.replaceAll(green, '').replaceAll(plainColor, ''), 'colour changes no text');
});

t.test('an error ends a chat that is not on a terminal', async (t) => {
  const cases: [input: string, args: string[], code: number, message: RegExp][] = [
    ['/set temprature 1\nA dog', [], 64, /did you mean temperature\?/],
    ['/sytem x', [], 64, /did you mean \/system\?/],
    ['"""A dog', [], 64, /Expected """ before the end of the input/],
    ['A dog', ['--top-p=2'], 64, /topP/],
    [`${'word '.repeat(60)}`, ['--max-model-len=32'], 64, /at most 31 tokens .*without this message \(\/reset begins a new one\)/],
    ['/load /no/such', [], 64, /Expected a file to read for \/load but received \/no\/such/],
    ['', ['--tint-drafts'], 64, /Expected --speculative-config with --tint-drafts/],
    ['', ['another'], 64, /Expected MODEL but received 2 operands/],
  ];
  for (const [input, args, expected, message] of cases) {
    const { code, stderr, stdout } = await chat(input, ...args);
    t.equal(code, expected, input);
    t.match(stderr, message);
    t.equal(stdout, '');
  }
  const { code, stderr } = await ndsrun(['chat', 'examples/models/story-180k'], { input: '' });
  t.equal(code, 64);
  t.match(stderr, /Expected a model with a chat template but received .* \(ndsrun generate continues a text\)/);
});

t.test('SIGINT stops the answer; without one it ends the chat', async (t) => {
  for (const numRanks of [1, 2]) {
    // Slow kernels: an answer takes seconds, so that the signal comes before its end.
    const options = { input: 'open', env: { NDS_ISA: 'portable' } };
    const running = new Running(['chat', model, '--ignore-eos', `--nproc-per-node=${numRanks}`], options);
    running.child.stdin?.write('/set max-tokens 900\nA dog\n');
    await running.printed(/max-tokens 900\n.*\w/);
    running.child.kill('SIGINT');
    await running.printed(/max-tokens 900\n.*\w.*\n/);
    running.child.stdin?.write('/set max-tokens 4\nA cat\n');
    await running.printed(/max-tokens 4\n.+\n/);
    running.child.kill('SIGINT');
    const { code, signal, stderr } = await running.ended();
    t.same([code, signal, running.leftovers()], [0, null, []], stderr);
    t.match(stderr, /^\d+ tokens, stopped, .*\n4 tokens, first/);
  }
});

/** A chat on a terminal of the system's `script`, whose input is the keys. */
class TerminalChat {
  readonly #child;
  #screen = '';
  #seen = 0;

  constructor(args: readonly string[], state: string) {
    const command = ['env', '-u', 'NODE_OPTIONS', process.execPath, executable, 'chat', ...args].map((word) => `'${word}'`).join(' ');
    this.#child = spawnTied('script', ['-qec', `stty cols 60; ${command}; echo "exit code $?"; stty -a`, '/dev/null'], {
      env: { ...process.env, XDG_STATE_HOME: state, TERM: 'xterm', SHELL: '/bin/sh', NO_COLOR: '1' },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      // The line editor and the terminal both turn a newline into two characters.
      this.#screen += text.replaceAll('\r', '');
    });
  }

  press(keys: string): void {
    this.#child.stdin?.write(keys);
  }

  /** Resolves when the screen has shown `pattern` after what was shown before. */
  async shown(pattern: RegExp): Promise<string> {
    for (;;) {
      const match = pattern.exec(this.#screen.slice(this.#seen));
      if (match !== null) {
        this.#seen += match.index + match[0].length;
        return match[0];
      }
      if (this.#child.exitCode !== null) throw new Error(`ended before ${pattern}: ${this.#screen}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

const hasTerminal = process.platform === 'linux' && spawnSync('script', ['-qec', 'true', '/dev/null']).status === 0;

t.test('on a terminal', { skip: !hasTerminal && 'script of util-linux is not installed' }, async (t) => {
  const state = t.testdir();
  const terminal = new TerminalChat([model, '--temperature=0', '--ignore-eos', '--nproc-per-node=2'], state);
  await terminal.shown(/on 2 ranks, .* tokens; \/help lists the commands, Ctrl-D ends\n/);
  await terminal.shown(/>>> /);
  terminal.press('A dog\r');
  await terminal.shown(/A dog\n[^\n]*\w/);
  terminal.press('typed ahead\u0003');
  await terminal.shown(/\n\d+ tokens, stopped, /);
  await terminal.shown(/>>> /);
  terminal.press('/tset\r');
  await terminal.shown(/Expected a command/);
  await terminal.shown(/>>> /);
  terminal.press('/set max-tokens 4\r');
  await terminal.shown(/max-tokens 4\n[^\n]*>>> /);
  terminal.press('\u001b[200~one\ntwo\u001b[201~');
  await terminal.shown(/one\u2424two/);
  terminal.press('\u0003');
  await terminal.shown(/>>> /);
  terminal.press('"""\r');
  await terminal.shown(/\.\.\. /);
  terminal.press('A cat\r');
  await terminal.shown(/\.\.\. /);
  terminal.press('"""\r');
  await terminal.shown(/4 tokens, first .*\nthe answer was cut: max-tokens is 4/);
  await terminal.shown(/>>> /);
  terminal.press('\u001b[A\u001b[A');
  await terminal.shown(/A cat/);
  terminal.press('\u0003');
  await terminal.shown(/>>> /);
  terminal.press('\u0003');
  await terminal.shown(/Ctrl-C again, Ctrl-D or \/exit ends the chat/);
  terminal.press('\u0003');
  await terminal.shown(/exit code 0\n/);
  t.match(await terminal.shown(/ -?icanon.* -?echo /s), / icanon.* echo /s, 'the terminal is as it was');
  const history = readFileSync(join(state, 'nano-dist-spec', 'chat-history'), 'utf8');
  t.equal(history, 'A dog\n/tset\n/set max-tokens 4\n"""\nA cat\n"""\n');
  const silent = new TerminalChat([model, '--no-history'], join(state, 'other'));
  await silent.shown(/>>> /);
  silent.press('\u0004');
  await silent.shown(/exit code 0/);
  t.notOk(existsSync(join(state, 'other')));
});
