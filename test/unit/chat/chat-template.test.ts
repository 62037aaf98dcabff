/** Chat templates against the output of Hugging Face Transformers, and hostile templates. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual, promisify } from 'node:util';
import t from 'tap';
import { type ChatLimits, type ChatOptions, ChatTemplate } from '../../../rank/chat/chat-template.ts';
import type { ChatMessage } from '../../../rank/chat/messages.ts';

const fixtures = join(import.meta.dirname, '../../fixtures/chat-templates');
const limits: ChatLimits = { maxSteps: 2e6, maxWorkChars: 2 ** 24, maxOutputChars: 2 ** 20, timeoutMs: 60_000 };

/** What is thrown when a model's template refuses the messages, and when it fails. */
const codes = { messages: 'ERR_REQUEST', template: 'ERR_TOKENIZER' };

interface Option {
  readonly add_generation_prompt?: boolean;
  readonly continue_final_message?: boolean;
  readonly tools?: object[];
  readonly kwargs?: Record<string, unknown>;
}

interface Snippets {
  readonly variables: Record<string, unknown>;
  readonly snippets: { template: string; text?: string; error?: string; refused?: boolean }[];
}

interface Vectors {
  readonly families: Record<string, Record<string, string>>;
  readonly conversations: ChatMessage[][];
  readonly options: Option[];
  readonly results: [name: string, option: number, conversation: number, text: string | { readonly error: keyof typeof codes }][];
  readonly semantics: { template: string; variables: Record<string, unknown>; text?: string; error?: string }[];
}

const vectors = JSON.parse(await readFile(join(fixtures, 'vectors.json'), 'utf8')) as Vectors;

function make(template: string, specialTokens: Record<string, string> = {}, overrides: Partial<ChatLimits> = {}): ChatTemplate {
  return new ChatTemplate({ templates: new Map([['default', template]]), source: 'the-model' }, specialTokens, { ...limits, ...overrides });
}

/** Steps for hours, where their number is not limited. */
const endless = `{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}`;
const hello: ChatMessage[] = [{ role: 'user', content: 'Hello' }];

t.test('whole strings as Transformers gives them', async (t) => {
  for (const [name, tokens] of Object.entries(vectors.families)) {
    const chat = make(await readFile(join(fixtures, `${name}.jinja`), 'utf8'), tokens);
    t.teardown(() => chat.close());
    const results = vectors.results.filter((result) => result[0] === name);
    let numRefused = 0;
    const wrong: unknown[] = [];
    for (const [, option, conversation, result] of results) {
      const expected = typeof result === 'string' ? result : codes[result.error];
      const { add_generation_prompt, continue_final_message, tools, kwargs } = vectors.options[option] as Option;
      const options: ChatOptions = {
        addGenerationPrompt: add_generation_prompt,
        continueFinalMessage: continue_final_message,
        tools,
        chatTemplateKwargs: { date_string: '26 Jul 2024', ...kwargs },
      };
      const messages = vectors.conversations[conversation] as ChatMessage[];
      const text = await chat.render(messages, options).catch((error: { code: string }) => {
        numRefused++;
        return error.code;
      });
      if (text !== expected) wrong.push({ messages, option, expected, text });
    }
    t.same(wrong, [], name);
    t.ok(results.length > 150 && numRefused < 40, `${name}: ${results.length} texts, ${numRefused} refused`);
  }
});

t.test('all of Jinja is rendered or refused as it is in Python', async (t) => {
  const chat = make('unused');
  t.teardown(() => chat.close());
  const { variables, snippets } = JSON.parse(await readFile(join(fixtures, '../jinja/vectors.json'), 'utf8')) as Snippets;
  const { messages: own, ...chatTemplateKwargs } = variables;
  const wrong: unknown[] = [];
  for (const { template, text: expected, error } of snippets) {
    // A separate variable, as these messages do not pass the checks of `messages`, on a line that Jinja drops.
    const options = { chatTemplate: `{% set messages = own %}\n${template}`, chatTemplateKwargs: { ...chatTemplateKwargs, own } };
    const got = await chat.render(hello, options).catch(({ code, message }: { code: string; message: string }) => {
      const blamed = /messages that the chat template of chatTemplate takes/.test(message) ? 'raised' : 'template';
      return { code, blamed };
    });
    const blamed = error === 'raised' ? 'raised' : 'template';
    if (!isDeepStrictEqual(got, expected ?? { code: 'ERR_REQUEST', blamed })) wrong.push({ template, expected, error, got });
  }
  t.same(wrong, []);
  t.ok(snippets.length > 1400);
  t.ok(snippets.filter(({ refused }) => refused).length < 12, 'hardly any are refused');
});

t.test('an error names what failed and its line', async (t) => {
  const cases: Record<string, RegExp> = {
    '\n\n{% include "x" %}': /line 3: 'include' finds no other template/,
    '{% if true %}\n{{ messages[0].nope.x }}{% endif %}': /line 2: 'messages\[0\]\.nope' is undefined/,
    '\n{{ 1|nope }}': /line 2: no filter named 'nope' \(there are abs, /,
    '{{ "a".encode() }}': /line 1: str\.encode is not supported/,
    '\n{% for x in %}': /it cannot be parsed: line 2: expected an expression, got '?%}/,
    '{{ messages[0].content + 1 }}': /line 1: unsupported operand types for \+: 'str' and 'int'/,
    '{% autoescape true %}{% endautoescape %}': /line 1: autoescape of anything but false is not supported/,
  };
  for (const [template, message] of Object.entries(cases)) {
    const chat = make(template);
    await t.rejects(chat.render(hello), { code: 'ERR_TOKENIZER', message }, template);
    await chat.close();
  }
});

t.test('expressions and statements mean what they mean in Python', async (t) => {
  const chat = make('unused');
  t.teardown(() => chat.close());
  const wrong: unknown[] = [];
  for (const { template, variables, text: expected = null, error } of vectors.semantics) {
    const { messages, ...chatTemplateKwargs } = variables;
    // A separate variable, as these messages do not pass the checks of `messages`.
    const chatTemplate = messages === undefined ? template : `{% set messages = own %}${template}`;
    const options = { chatTemplate, chatTemplateKwargs: { ...chatTemplateKwargs, own: messages ?? null } };
    const text = await chat.render(hello, options).catch((reason: { code: string }) => (reason.code === 'ERR_REQUEST' ? null : reason));
    if (text !== expected) wrong.push({ template, expected, error, text });
  }
  t.same(wrong, []);
  t.ok(vectors.semantics.length > 300);
});

t.test('None is a value, and words are split at any white space', async (t) => {
  const chat = make('unused');
  t.teardown(() => chat.close());
  const render = (chatTemplate: string, own: unknown) => chat.render(hello, { chatTemplate, chatTemplateKwargs: { own } });
  const list = "{{ own|map(attribute='content', default='D')|list }}";
  t.equal(await render(list, [{ content: null }, { content: 'a' }, {}]), "[None, 'a', 'D']");
  const text = '  🙂 a\u00a0b \n c  ';
  t.equal(await render('{{ own.split()|tojson }}', text), '["🙂", "a", "b", "c"]');
  t.equal(await render('{{ own.split(None, 2)|tojson }}', text), '["🙂", "a", "b \\n c  "]');
  t.equal(await render('{{ own.split(None, 0)|tojson }}', text), '["🙂 a\u00a0b \\n c  "]');
});

t.test('a template that means harm ends soon, as an error of the model', async (t) => {
  const chat = make('{{ messages[0].content }}', {}, { maxSteps: 2e5, maxWorkChars: 2 ** 20, maxOutputChars: 2 ** 16 });
  t.teardown(() => chat.close());
  const hostile: Record<string, RegExp> = {
    '{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}': /more than 200000 steps/,
    '{{ range(10**9) }}': /a range of more than 100000/,
    "{{ 'x' * 10**12 }}": /more than 1048576 characters/,
    '{{ [0] * 10**12 }}': /more than 200000 steps/,
    "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}":
      /more than 1048576 characters/,
    '{% set ns = namespace(l=[0]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}': /more than 200000 steps/,
    '{% set ns = namespace(l=[0]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}':
      /more than 1048576 characters/,
    '{% set ns = namespace(l=[0]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l|tojson }}':
      /more than 1048576 characters/,
    "{{ 'x'.ljust(10**12) }}": /more than 1048576 characters/,
    "{{ 'a\nb'|indent(10**12) }}": /more than 1048576 characters/,
    "{{ ('x' * 1000).replace('x', 'y' * 10000) }}": /more than 1048576 characters/,
    '{{ messages|tojson(indent=10**12) }}': /more than 1048576 characters/,
    '{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}': /more than 500 nested/,
    '{{ 10 ** 400 }}': /integers below 2\^53/,
    [`{{ ${'('.repeat(50_000)}1${')'.repeat(50_000)} }}`]: /call stack/,
    [`${'{% if 0 %}'.repeat(20_000)}${'{% endif %}'.repeat(20_000)}`]: /call stack|cannot be parsed/,
  };
  for (const [template, message] of Object.entries(hostile)) {
    const own = make(template, {}, { maxSteps: 2e5, maxWorkChars: 2 ** 20, maxOutputChars: 2 ** 16 });
    await t.rejects(own.render(hello), { code: 'ERR_TOKENIZER', message }, template.slice(0, 60));
    await own.close();
  }
  const given: Record<string, RegExp> = {
    "{{ '%1000000000d' % 1 }}": /more than 1048576 characters/,
    "{{ '{:>1000000000}'.format(1) }}": /more than 1048576 characters/,
    "{{ '%.*f' % (10**9, 1) }}": /more than 1048576 characters/,
    "{{ '{:.1000000000f}'.format(1) }}": /more than 1048576 characters/,
    "{{ 'x'.zfill(10**12) }}": /more than 1048576 characters/,
    "{{ '\t'.expandtabs(10**12) }}": /more than 1048576 characters/,
    "{{ 'x'|center(10**12) }}": /more than 1048576 characters/,
    "{{ [1]|batch(10**12, 'x')|list }}": /more than 200000 steps/,
    '{{ [1]|slice(10**12)|list }}': /more than 200000 steps/,
    '{{ [[0]] * 99999 + [[0]] * 99999 }}': /more than 200000 steps/,
    '{% for n in [1] recursive %}{{ loop([1]) }}{% endfor %}': /more than 500 nested/,
    '{% for x in [0] * 99999 %}{% for y in [0] * 99999 if false %}{% endfor %}{% endfor %}': /more than 200000 steps/,
    '{% block a %}{{ self.a() }}{% endblock %}': /more than 500 nested/,
  };
  for (const [chatTemplate, message] of Object.entries(given)) {
    await t.rejects(chat.render(hello, { chatTemplate }), { code: 'ERR_REQUEST', message }, chatTemplate);
  }
  await t.rejects(chat.render(hello, { chatTemplate: "{{ 'x' * 70000 }}" }), {
    code: 'ERR_REQUEST',
    message: /more than 65536 characters of text/,
  });
  t.equal(await chat.render(hello), 'Hello', 'the next one is not concerned');
});

t.test('one that does not end is ended, and the next gets another thread', async (t) => {
  const chat = make(endless, {}, { timeoutMs: 300, maxSteps: Number.POSITIVE_INFINITY });
  t.teardown(() => chat.close());
  const [first, next] = await Promise.allSettled([chat.render(hello), chat.render(hello, { chatTemplate: '{{ messages[0].content }}' })]);
  t.match(first, { reason: { code: 'ERR_TOKENIZER', message: /working chat template for the-model but received: no end after 300 ms/ } });
  t.match(next, { value: 'Hello' });
});

t.test('nothing of JavaScript can be reached', async (t) => {
  const chat = make('unused');
  t.teardown(() => chat.close());
  const names = [
    'constructor',
    '__proto__',
    'prototype',
    '__defineGetter__',
    'hasOwnProperty',
    'toString',
    'valueOf',
    'then',
    'call',
    'at',
    'map',
  ];
  const values = [
    "''",
    '[]',
    '{}',
    'messages',
    'messages[0]',
    '1',
    '1.5',
    'true',
    'none',
    'range',
    'namespace()',
    '(1, 2)',
    'raise_exception',
  ];
  for (const value of values) {
    for (const name of names) {
      const chatTemplate = `{{ (${value}).${name} is defined }}{{ (${value})['${name}'] is defined }}`;
      t.equal(await chat.render(hello, { chatTemplate }), 'FalseFalse', chatTemplate);
    }
  }
  for (const name of ['process', 'globalThis', 'require', 'constructor', 'toString', 'Object', 'window']) {
    t.equal(await chat.render(hello, { chatTemplate: `{{ ${name} is defined }}` }), 'False', name);
  }
  t.equal(
    await chat.render(hello, { chatTemplate: '{{ self }}{{ self.constructor is defined }}' }),
    '<TemplateReference None>False',
    "Jinja's self",
  );
  const poisoned = JSON.parse('[{"role":"user","content":"x","__proto__":{"polluted":1},"constructor":2}]') as ChatMessage[];
  const template = '{{ messages[0]["__proto__"].polluted }}{{ messages[0].constructor }}{{ messages[0].polluted is defined }}';
  t.equal(await chat.render(poisoned, { chatTemplate: template }), '12False', 'what JSON calls so is a field like others');
});

t.test('messages and options are checked by name', async (t) => {
  const chat = make("{{ raise_exception('no system here') if messages[0].role == 'system' }}{{ messages[0].content }}");
  t.teardown(() => chat.close());
  const cyclic: Record<string, unknown> = { role: 'user', content: 'x' };
  cyclic['self'] = cyclic;
  const wrong: [messages: unknown, options: unknown, message: RegExp][] = [
    ['Hello', {}, /an array of messages for messages but received "Hello"/],
    [[], {}, /at least one message for messages/],
    [['Hello'], {}, /an object .* for messages\[0\] but received "Hello"/],
    [[new Date(0)], {}, /an object .* for messages\[0\]/],
    [[...hello, { content: 'x' }], {}, /a non-empty string for messages\[1\]\.role but received undefined/],
    [[{ role: 'user' }], {}, /messages\[0\]\.content but received undefined/],
    [[{ role: 'user', content: 5 }], {}, /messages\[0\]\.content but received 5/],
    [[{ role: 'user', content: [{ type: 'image_url', image_url: 'x' }] }], {}, /only kind of part .* messages\[0\]\.content\[0\]/],
    [[{ role: 'user', content: 'x', id: 5n }], {}, /a JSON value for messages\[0\]\.id but received 5n/],
    [[{ role: 'user', content: 'x', f: { g: [() => 1] } }], {}, /messages\[0\]\.f\.g\[0\] but received a function/],
    [[{ role: 'user', content: 'x', n: Number.NaN }], {}, /messages\[0\]\.n but received NaN/],
    [[cyclic], {}, /at most 64 levels/],
    [[{ role: 'system', content: 'x' }], {}, /from it: no system here/],
    [hello, { add_generation_prompt: true }, /the chat option addGenerationPrompt, in camel case, but received 'add_generation_prompt'/],
    [hello, { addGenerationPrompt: 1 }, /true or false for addGenerationPrompt but received 1/],
    [hello, { addGenerationPrompt: true, continueFinalMessage: true }, /false beside continueFinalMessage/],
    [hello, { tools: [5] }, /JSON schemas for tools/],
    [hello, { chatTemplateKwargs: { messages: [] } }, /other than messages, .* but received 'messages'/],
    [hello, { chatTemplateKwargs: { f: () => 1 } }, /chatTemplateKwargs\.f but received a function/],
    [hello, { chatTemplate: 7 }, /chatTemplate but received 7/],
    [hello, { chatTemplate: 'rag' }, /one of the names default for chatTemplate but received "rag"/],
    [hello, { chatTemplate: '{% if %}' }, /working chat template for chatTemplate but received: it cannot be parsed/],
    [hello, null, /an object of chat options/],
    [hello, { continueFinalMessage: true, chatTemplate: '{{ 1 }}' }, /keeps the final message/],
    [[{ role: 'assistant', content: null }], { continueFinalMessage: true }, /text to continue .* but received null/],
  ];
  for (const [messages, options, message] of wrong) {
    await t.rejects(chat.render(messages as ChatMessage[], options as ChatOptions), { code: 'ERR_REQUEST', message }, String(message));
  }
  await t.rejects(make('{{ 5|nope }}').render(hello), { code: 'ERR_TOKENIZER', message: /no filter named 'nope' \(there are abs, / });
});

t.test('strftime_now is the local time', async (t) => {
  const chat = make("{{ strftime_now('%Y-%m-%d %H %B %b %A %j %%') }}");
  t.teardown(() => chat.close());
  const format = () => {
    const now = new Date();
    const part = (options: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat('en-US', options).format(now);
    const day = `${now.getFullYear()}-${String(now.getMonth() + 1).padStart(2, '0')}-${String(now.getDate()).padStart(2, '0')}`;
    const dayOfYear = Math.round((Date.UTC(now.getFullYear(), now.getMonth(), now.getDate()) - Date.UTC(now.getFullYear(), 0, 0)) / 864e5);
    return `${day} ${String(now.getHours()).padStart(2, '0')} ${part({ month: 'long' })} ${part({ month: 'short' })} ${part({ weekday: 'long' })} ${String(dayOfYear).padStart(3, '0')} %`;
  };
  const [before, text, after] = [format(), await chat.render(hello), format()];
  t.ok(text === before || text === after, text);
});

t.test('templates are found where Transformers looks', async (t) => {
  const render = async (files: Record<string, unknown>, options: ChatOptions = {}) => {
    const folder = t.testdir(files as Parameters<typeof t.testdir>[0]);
    const chat = await ChatTemplate.load(folder, { eos_token: '</s>', bos_token: '<s>' });
    try {
      return await chat.render(hello, options);
    } finally {
      await chat.close();
    }
  };
  const config = (value: unknown) => JSON.stringify(value);
  const named = [
    { name: 'default', template: 'D{{ eos_token }}{{ bos_token }}' },
    { name: 'tool_use', template: 'T{{ tools }}' },
  ];
  const files = { 'tokenizer_config.json': config({ chat_template: named, eos_token: 'not this', pad_token: 'nor this' }) };
  t.equal(await render(files), 'D</s><s>');
  t.equal(await render(files, { tools: [{}] }), 'T[{}]');
  t.equal(await render(files, { chatTemplate: 'tool_use' }), 'TNone');
  t.equal(await render(files, { chatTemplate: '{{ pad_token is defined }}' }), 'False');
  t.equal(await render({ ...files, 'chat_template.jinja': 'J{{ eos_token }}' }, { tools: [] }), 'J</s>', 'a file replaces all of them');
  const more = { 'chat_template.jinja': 'J', additional_chat_templates: { 'tool_use.jinja': 'A', 'readme.txt': 'no' } };
  t.equal(await render(more, { tools: [] }), 'A');
  t.equal(await render({ 'chat_template.json': config({ chat_template: 'P' }) }), 'P');
  t.equal(await render({ 'tokenizer_config.json': config({ chat_template: 'a\r\n{% if true %}\r\nb{% endif %}\r' }) }), 'a\nb');
  await t.rejects(render({ 'tokenizer_config.json': '{}' }), {
    code: 'ERR_REQUEST',
    message: /given as chatTemplate, but received a model without one/,
  });
  await t.rejects(render({}), { code: 'ERR_REQUEST' });
  t.equal(await render({}, { chatTemplate: '{{ messages[0].content }}' }), 'Hello');
  await t.rejects(render({ additional_chat_templates: { 'rag.jinja': 'R' } }), { code: 'ERR_REQUEST', message: /only those named rag in/ });
  for (const wrong of [5, {}, [{ name: 'default' }], ['x']]) {
    await t.rejects(render({ 'tokenizer_config.json': config({ chat_template: wrong }) }), {
      code: 'ERR_TOKENIZER',
      message: /chat_template for/,
    });
  }
  await t.rejects(render({ 'tokenizer_config.json': '[]' }), { code: 'ERR_TOKENIZER', message: /tokenizer_config\.json/ });
});

t.test('a renderer that nobody closes keeps no process alive', async (t) => {
  const module = new URL('../../../rank/chat/chat-template.ts', import.meta.url).href;
  const script = `
    import { ChatTemplate } from ${JSON.stringify(module)};
    const chat = await ChatTemplate.load('.');
    const options = { chatTemplate: '{{ messages[0].content }}' };
    console.log(await chat.render([{ role: 'user', content: 'Hello' }], options), await chat.render([{ role: 'user', content: 'again' }], options));
  `;
  const args = ['--import', import.meta.resolve('tsx'), '--input-type=module', '--eval', script];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: t.testdir({}) });
  t.equal(stdout, 'Hello again\n');
});

t.test('closing ends what is under way and what comes later', async (t) => {
  const chat = make(endless, {}, { maxSteps: Number.POSITIVE_INFINITY });
  const renders = [chat.render(hello), chat.render(hello)].map((render) => t.rejects(render, { code: 'ERR_CLOSED' }));
  await Promise.all([chat.close(), chat.close()]);
  await Promise.all(renders);
  await t.rejects(chat.render(hello), { code: 'ERR_CLOSED' });
});
