/**
 * Fills the option tables of docs/: `npm run docs`. The text between `<!-- options: NAME -->` and `<!-- /options -->`
 * is generated from the docstrings of an options type or from a command's `--help`, so that it is written once.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { listFiles, root } from './files.mjs';

/** @type {Readonly<Record<string, readonly (readonly [file: string, type: string])[]>>} Types whose members make each table. */
const types = {
  load: [['rank/options.ts', 'LLMOptions']],
  sampling: [['rank/request/sampling-params.ts', 'SamplingParams']],
  request: [
    ['rank/request/request-options.ts', 'RequestOptions'],
    ['rank/request/request-options.ts', 'GenerateOptions'],
  ],
  chat: [['rank/chat/chat-template.ts', 'ChatOptions']],
  embed: [
    ['rank/request/embedding.ts', 'EmbedOptions'],
    ['rank/request/request-options.ts', 'RequestOptions'],
  ],
  speculative: [
    ['rank/speculative/config.ts', 'SpeculativeConfig'],
    ['rank/speculative/proposers/ngram.ts', 'NgramOptions'],
    ['rank/speculative/proposers/suffix.ts', 'SuffixOptions'],
  ],
};

/** @type {Readonly<Record<string, readonly string[]>>} Arguments of each command. */
const commands = {
  overview: [],
  launch: ['run'],
  generate: ['generate'],
  'chat-command': ['chat'],
  bench: ['bench'],
  'bench-latency': ['bench', 'latency'],
  'bench-throughput': ['bench', 'throughput'],
  'bench-spec': ['bench', 'spec'],
  'bench-comm': ['bench', 'comm'],
  'bench-kv-utilization': ['bench', 'kv-utilization'],
  'bench-accuracy': ['bench', 'accuracy'],
  replay: ['replay'],
  pull: ['pull'],
  models: ['models'],
  cache: ['cache'],
  build: ['build'],
};

/**
 * Members of an interface with their docstrings as one line each.
 * @param {string} text of the file
 * @param {string} type
 * @returns {[name: string, doc: string][]}
 */
export function membersOf(text, type) {
  const file = ts.createSourceFile('options.ts', text, ts.ScriptTarget.Latest, true);
  const found = file.statements.find((one) => ts.isInterfaceDeclaration(one) && one.name.text === type);
  if (found === undefined || !ts.isInterfaceDeclaration(found)) throw new Error(`Expected an interface ${type} but found none`);
  return found.members.map((member) => {
    const name = member.name?.getText() ?? '';
    const doc = ts.getJSDocCommentsAndTags(member)[0];
    const comment = doc === undefined ? '' : (ts.getTextOfJSDocComment(doc.comment) ?? '');
    if (comment === '') throw new Error(`Expected a docstring for ${type}.${name} but found none`);
    return [name, comment.replace(/\s+/g, ' ').trim()];
  });
}

/** @param {string} name of a table or a command @returns {string} */
function contentOf(name) {
  const command = commands[name];
  if (command !== undefined) {
    const help = execFileSync(process.execPath, [join(root, 'bin/ndsrun.js'), ...command, '--help'], { encoding: 'utf8' });
    return `\`\`\`text\n${help.trimEnd()}\n\`\`\``;
  }
  const sources = types[name];
  if (sources === undefined)
    throw new Error(`Expected options of ${Object.keys({ ...types, ...commands }).join(', ')} but received ${name}`);
  const rows = sources.flatMap(([file, type]) => membersOf(readFileSync(join(root, file), 'utf8'), type));
  return ['| option | meaning |', '|---|---|', ...rows.map(([option, doc]) => `| \`${option}\` | ${doc.replaceAll('|', '\\|')} |`)].join(
    '\n',
  );
}

/**
 * The document with its tables filled in.
 * @param {string} text
 * @param {(name: string) => string} content
 */
export function fill(text, content = contentOf) {
  return text.replace(
    /(<!-- options: ([\w-]+) -->\n)[\s\S]*?(<!-- \/options -->)/g,
    (_, begin, name, end) => `${begin}${content(name)}\n${end}`,
  );
}

/**
 * Documents with option tables, as they are and as they should be.
 * @returns {{ file: string, text: string, filled: string }[]}
 */
export function documents() {
  return listFiles(['docs'], ['.md']).map((file) => {
    const text = readFileSync(join(root, file), 'utf8');
    return { file, text, filled: fill(text) };
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const { file, text, filled } of documents()) if (text !== filled) writeFileSync(join(root, file), filled);
}
