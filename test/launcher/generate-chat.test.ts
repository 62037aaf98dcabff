/** `ndsrun generate` of a model with a chat template. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { chatModel } from '../helpers/chat-model.ts';
import { ndsrun } from '../helpers/launcher.ts';

const model = chatModel(t);
const greedy = ['--temperature=0', '--nproc-per-node=1'];
const generate = (...args: string[]) => ndsrun(['generate', model, ...greedy, ...args]);

t.test('says once that a template was not applied', async (t) => {
  const { code, stderr } = await generate('A dog', '--max-tokens=4');
  t.equal(code, 0);
  t.match(stderr, /^ndsrun: the model has a chat template: --chat, --system TEXT or --messages FILE apply it\n4 tokens: .*\n/);
  t.equal((await generate('A dog', '--max-tokens=4', '--quiet')).stderr, '');
});

t.test('a conversation, given as a prompt, as a file and on standard input', async (t) => {
  const messages = [
    { role: 'system', content: 'A story.' },
    { role: 'user', content: 'A dog' },
  ];
  const file = join(t.testdir(), 'messages.json');
  writeFileSync(file, JSON.stringify(messages));
  const parse = ({ stdout }: { stdout: string }) => JSON.parse(stdout) as { prompt: string; token_ids: number[] };
  const prompted = await generate('A dog', '--system=A story.', '--json', '--max-tokens=8', '--quiet');
  const expected = parse(prompted);
  t.equal(expected.prompt, 'A story.\nA dog\nOnce upon');
  t.equal(expected.token_ids.length, 8);
  for (const other of [
    await ndsrun(['generate', model, ...greedy, '--messages=-', '--json', '--max-tokens=8', '--quiet'], {
      input: JSON.stringify(messages),
    }),
    await generate('--messages', file, '--json', '--max-tokens=8', '--quiet'),
  ]) {
    t.equal(other.stderr, '');
    t.same(parse(other).token_ids, expected.token_ids);
  }
  const { code, stderr } = await generate('--messages', file, '--system=x');
  t.equal(code, 64);
  t.match(stderr, /Expected no system message in .* beside --system but received one/);
});

t.test("an answer ends at the model's end, or where the context does", async (t) => {
  const { stdout, stderr } = await generate('A dog', '--chat', '--max-model-len=64');
  t.match(stdout, /^[^[]+\n$/);
  t.match(stderr, /^\d+ tokens: .*\nthe text was cut: the context is full\n$/);
  const several = await generate('A dog', '--chat', '--n=2', '--max-tokens=3');
  t.match(several.stderr, /\n2 of 2 texts were cut: --max-tokens is 3\n$/);
});

t.test('refuses what is no conversation, before ranks start', async (t) => {
  for (const [input, message] of [
    ['{', /Expected messages, a JSON array .* in -: .*JSON/],
    ['[{"role":"user"}]', /in -: Expected .* for messages\[0\].content/],
    ['[]', /at least one message/],
  ] as const) {
    const { code, stderr } = await ndsrun(['generate', model, '--messages=-'], { input });
    t.equal(code, 64);
    t.match(stderr, message);
    t.notMatch(stderr, /rank 0/);
  }
});
