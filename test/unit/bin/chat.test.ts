/** The parts of `ndsrun chat` that do no I/O, and its history. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { AnswerMeter } from '../../../bin/chat/answer-meter.ts';
import { Conversation } from '../../../bin/chat/conversation.ts';
import { ChatHistory, historyFile } from '../../../bin/chat/history.ts';
import { type ChatAction, ChatLines } from '../../../bin/chat/lines.ts';
import { ChatParameters } from '../../../bin/chat/parameters.ts';
import { PasteFilter, withNewlines } from '../../../bin/chat/paste.ts';
import { tinted } from '../../../bin/chat/tint.ts';

/** The last action of some lines. */
function actionOf(...lines: string[]): ChatAction | undefined {
  const chat = new ChatLines();
  return lines.map((line) => chat.push(line)).at(-1);
}

t.test('a line is a message, a command, or part of a message', async (t) => {
  t.same(actionOf('Hello, you'), { type: 'say', text: 'Hello, you' });
  t.same(actionOf('  '), { type: 'nothing' });
  t.same(actionOf('/reset'), { type: 'reset' });
  t.same(actionOf('/bye'), { type: 'exit' });
  t.same(actionOf('/system You are a pirate. '), { type: 'system', text: 'You are a pirate.' });
  t.same(actionOf('/system'), { type: 'system', text: null });
  t.same(actionOf('/set temperature 0.2'), { type: 'set', parameter: { name: 'temperature', value: '0.2' } });
  t.same(actionOf('/set stop=a = b'), { type: 'set', parameter: { name: 'stop', value: 'a = b' } });
  t.same(actionOf('/set'), { type: 'set', parameter: null });
  t.same(actionOf('/save my file.json'), { type: 'save', file: 'my file.json' });
  t.match(actionOf('/set temperature'), { type: 'refuse', message: /Expected a value for \/set temperature/ });
  t.match(actionOf('/load'), { type: 'refuse', message: /Expected a file for \/load/ });
  t.match(actionOf('/reset now'), { type: 'refuse', message: /Expected nothing after \/reset but received "now"/ });
  t.match(actionOf('/rest'), { type: 'refuse', message: /received \/rest \(did you mean \/reset\?\)/ });
  t.match(actionOf('/etc/passwd'), { type: 'refuse', message: /one of \/help .*received \/etc\/passwd: a message that begins with \/ / });
});

t.test('messages of several lines', async (t) => {
  t.same(actionOf('one \\', 'two\\', 'three'), { type: 'say', text: 'one \ntwo\nthree' });
  t.same(actionOf('"""'), { type: 'more' });
  t.same(actionOf('"""', 'one', '', '/two', '"""'), { type: 'say', text: 'one\n\n/two' });
  t.same(actionOf('"""one', 'two"""'), { type: 'say', text: 'one\ntwo' });
  t.same(actionOf('"""/path"""'), { type: 'say', text: '/path' });
  t.same(actionOf('""""', '"""'), { type: 'say', text: '"' }, 'quotes that overlap do not close');
  t.same(actionOf('"""', '"""'), { type: 'nothing' });
  t.same(actionOf('say """', 'x'), { type: 'say', text: 'x' }, 'quotes inside a line open nothing');
  t.same(actionOf('/system """', 'a', 'b', '"""'), { type: 'system', text: 'a\nb' });
  const chat = new ChatLines();
  chat.push('"""one');
  t.ok(chat.isOpen);
  t.match(chat.end(), { type: 'refuse', message: /Expected """ before the end of the input/ });
  chat.push('one\\');
  chat.discard();
  t.same([chat.isOpen, chat.push('two'), chat.end()], [false, { type: 'say', text: 'two' }, { type: 'exit' }]);
});

t.test('parameters by any spelling', async (t) => {
  const parameters = new ChatParameters({ temperature: 0.5, maxTokens: undefined });
  t.equal(parameters.set('max-tokens', '7'), 'max-tokens 7');
  t.equal(parameters.set('TOP_P', '0.5'), 'top-p 0.5');
  t.equal(parameters.set('minP', '0.1'), 'min-p 0.1');
  t.equal(parameters.set('seed', '18446744073709551615'), 'seed 18446744073709551615');
  t.equal(parameters.set('stop', 'END'), 'stop ["END"]');
  t.equal(parameters.set('stop', '5'), 'stop ["5"]');
  t.equal(parameters.set('bad-words', '["a", "b"]'), 'bad-words ["a","b"]');
  t.equal(parameters.set('temperature', '0'), 'temperature 0');
  const { current } = parameters;
  t.match(current, { maxTokens: 7, topP: 0.5, minP: 0.1, seed: 2n ** 64n - 1n, stop: ['5'], badWords: ['a', 'b'], temperature: 0 });
  t.match(parameters.describe(), /^temperature +0\n(.*\n)*seed +18446744073709551615\n(.*\n)*not set: top-k, /);
  t.equal(parameters.set('temperature', 'default'), 'temperature 0.5');
  t.equal(parameters.set('max_tokens', 'default'), 'max-tokens is the default');
  for (const [name, value, message] of [
    ['temprature', '1', /received temprature \(did you mean temperature\?\)/],
    ['zzz', '1', /\/set shows them/],
    ['top-p', '2', /above 0 and at most 1 for topP but received 2/],
    ['top-p', 'much', /for topP but received "much"/],
    ['n', '2', /one answer but received n, which ndsrun generate takes/],
    ['min-tokens', '99999999999', /minTokens/],
  ] as const)
    t.throws(() => parameters.set(name, value), { code: 'ERR_REQUEST', message }, name);
  t.equal(parameters.current.topP, 0.5, 'what is refused changes nothing');
  t.throws(() => new ChatParameters({ topP: 2 }), { code: 'ERR_REQUEST' });
});

t.test('a conversation', async (t) => {
  const system = { role: 'system', content: 'S' };
  const turns = [
    { role: 'user', content: 'U' },
    { role: 'assistant', content: 'A' },
  ];
  const conversation = new Conversation('S');
  conversation.add(...turns);
  t.same([conversation.messages, conversation.numTurns], [[system, ...turns], 1]);
  conversation.setSystem(null);
  t.same(conversation.messages, turns);
  conversation.replace([system, ...turns]);
  conversation.reset();
  t.same(conversation.messages, [system]);
  conversation.replace(turns);
  t.same(conversation.messages, turns, 'the system message is that of the file');
});

t.test('pasted newlines do not end the line', async (t) => {
  const typed = (...keys: string[]) => {
    const filter = new PasteFilter();
    return keys.map((some) => filter.push(some));
  };
  t.same(typed('a\r', '\u001b[A', '\u001b'), ['a\r', '\u001b[A', '\u001b'], 'typed keys pass at once');
  const whole = 'x\u001b[200~one\r\ntwo\tthree\u0003\r\u001b[201~\r';
  t.same(typed(whole), ['xone\u2424two\tthree\u2424\r']);
  // Not between Escape, which may be a key of its own, and the rest of the first mark.
  for (let cut = 3; cut < whole.length; cut++) {
    t.equal(typed(whole.slice(0, cut), whole.slice(cut)).join(''), 'xone\u2424two\tthree\u2424\r', `in two parts, ${cut}`);
  }
  t.equal(withNewlines('xone\u2424two\tthree\u2424'), 'xone\ntwo\tthree');
});

t.test('accepted drafts in green', async (t) => {
  const at = (token: string) => ({ tokenId: 1, logprob: 0, rank: 1, token, top: [] });
  const logprobs = [at(' a'), at(' b'), at(' c')];
  const chunk = { text: ' a b c', logprobs, drafted: { numDrafts: 3, numAccepted: 2 }, finishReason: null };
  t.equal(tinted(chunk), '\u001b[32m a b\u001b[39m c');
  t.equal(tinted({ ...chunk, text: ' a b', finishReason: 'stop' }), '\u001b[32m a b\u001b[39m');
  t.equal(tinted({ ...chunk, drafted: { numDrafts: 3, numAccepted: 0 } }), ' a b c');
  t.equal(tinted({ ...chunk, drafted: null }), ' a b c');
  t.equal(tinted({ ...chunk, text: ' a b' }), ' a b', 'text that waits is not told apart');
});

t.test('what an answer took', async (t) => {
  let now = 100;
  const meter = new AnswerMeter(() => now);
  t.same([meter.numTokens, meter.speculation, meter.finishReason], [0, null, null]);
  now = 150;
  meter.push({ tokenIds: [1, 2], drafted: null, finishReason: null, numCachedTokens: 32 });
  now = 250;
  meter.push({ tokenIds: [3, 4, 5], drafted: { numDrafts: 4, numAccepted: 2 }, finishReason: 'length', numCachedTokens: 32 });
  t.same([meter.numTokens, meter.numDecoded, meter.firstTokenMs, meter.decodeMs], [5, 3, 50, 100]);
  t.match(meter, { finishReason: 'length', numCachedTokens: 32, speculation: { numDraftTokens: 4, meanAcceptanceLength: 3 } });
});

t.test('the history', async (t) => {
  t.equal(historyFile({ XDG_STATE_HOME: '/state' }), '/state/nano-dist-spec/chat-history');
  const file = join(t.testdir(), 'state', 'chat-history');
  const errors: Error[] = [];
  const open = () => new ChatHistory(file, (error) => errors.push(error));
  const history = open();
  for (const line of ['one', ' ', 'two']) history.add(line);
  t.same([open().entries, errors], [['two', 'one'], []]);
  writeFileSync(file, Array.from({ length: 2001 }, (_, i) => `${i}\n`).join(''));
  t.equal(open().entries.length, 1000);
  t.equal(readFileSync(file, 'utf8').split('\n').length, 1001, 'the file is shortened');
  const lost = new ChatHistory(join(file, 'below-a-file'), (error) => errors.push(error));
  lost.add('x');
  t.same([lost.entries, errors.length], [[], 1], 'said once');
});
