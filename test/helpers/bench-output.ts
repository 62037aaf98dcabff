/** Checks of what bench commands print: each throws an error that says what is wrong. */
import { benchSchema } from '../../bin/bench/record.ts';
import { isObject } from '../../protocol/checks.ts';

const voidTags = new Set(['meta', 'br']);

/** Tags are closed in order, and text has no bare `<` or `&`. */
export function checkHtml(page: string): void {
  const [doctype, ...rest] = page.split('\n');
  if (doctype !== '<!doctype html>') throw new Error(`Expected a doctype but received ${doctype}`);
  const body = rest.join('\n').replace(/<style>[\s\S]*?<\/style>/, '');
  const open: string[] = [];
  for (const [tag, close, name = '', , selfClosed] of body.matchAll(/<(\/?)([a-z][a-z0-9]*)((?:\s+[\w:-]+="[^"<]*")*)\s*(\/?)>/g)) {
    if (close !== '') {
      const last = open.pop();
      if (last !== name) throw new Error(`Expected </${last}> but received ${tag}`);
    } else if (selfClosed === '' && !voidTags.has(name)) open.push(name);
  }
  if (open.length > 0) throw new Error(`Expected every tag closed but received ${open.join(', ')}`);
  const text = body.replace(/<\/?[a-z][a-z0-9]*(?:\s+[\w:-]+="[^"<]*")*\s*\/?>/g, '');
  const bare = /[<>]|&(?!(?:amp|lt|gt|quot|#39);)/.exec(text);
  if (bare !== null) throw new Error(`Expected escaped text but received ${text.slice(bare.index, bare.index + 40)}`);
  if (/NaN|Infinity|undefined/.test(body)) throw new Error('Expected numbers in the page');
}

/** The cells of every table row but rules. All rows of a table are as wide as its head. */
export function checkMarkdown(text: string): string[][] {
  const rows = text.split('\n').filter((line) => line.startsWith('|'));
  const cells = rows.map((row) =>
    row
      .slice(1, -1)
      .split(/(?<!\\)\|/)
      .map((cell) => cell.trim()),
  );
  const widths = new Set(cells.map(({ length }) => length));
  if (rows.length < 3 || widths.size !== 1) throw new Error(`Expected one table but received:\n${text}`);
  return cells.filter((row) => !row.every((cell) => /^-+:?$/.test(cell)));
}

type Kind = 'number' | 'string' | 'boolean' | 'object' | 'null';
type Shape = { readonly [key: string]: Kind | readonly Kind[] | Shape };
const spread: Shape = {
  median: 'number',
  min: 'number',
  max: 'number',
  lower_quartile: 'number',
  upper_quartile: 'number',
  values: 'object',
};
const recordShape: Shape = {
  schema: 'string',
  command: 'string',
  name: 'string',
  series: 'string',
  x: ['object', 'null'],
  unit: 'string',
  value: spread,
  num_warmups: 'number',
  num_rounds: 'number',
  limits: 'object',
  num_ranks: 'number',
  num_threads: ['number', 'null'],
  run: {
    engine: 'string',
    version: 'string',
    commit: ['string', 'null'],
    node: 'string',
    machine: { processor: 'string', isa: 'string', cores: 'number', memory_bytes: 'number' },
    cuda: ['object', 'null'],
  },
  model: ['object', 'null'],
  details: 'object',
};
const limitShape: Shape = { kind: 'string', unit: 'string', per_token: 'number', probe: spread, share: spread };
const modelShape: Shape = {
  name: 'string',
  is_synthetic: 'boolean',
  num_parameters: 'number',
  weight_bytes: 'number',
  kv_bytes_per_token: 'number',
  stored_dtype: 'string',
  dtype: 'string',
  kv_cache_dtype: 'string',
  quantization: 'string',
  load_seconds: 'number',
};

/** A record of `--json`, as far as tests look at it. */
export interface JsonRecord {
  readonly command: string;
  readonly name: string;
  readonly unit: string;
  readonly value: { readonly median: number; readonly values: readonly number[] };
  readonly num_warmups: number;
  readonly num_rounds: number;
  readonly num_ranks: number;
  readonly limits: readonly { readonly kind: string; readonly per_token: number; readonly share: { readonly median: number } }[];
  readonly model: { readonly weight_bytes: number; readonly num_parameters: number; readonly is_synthetic: boolean } | null;
  readonly details: Readonly<Record<string, unknown>>;
}

/** The records of a report, each with all fields of the schema and no other. */
export function checkRecords(json: string): JsonRecord[] {
  const report: unknown = JSON.parse(json);
  if (!isObject(report) || report['schema'] !== benchSchema)
    throw new Error(`Expected schema ${benchSchema} but received ${json.slice(0, 80)}`);
  const records = report['records'] as Record<string, unknown>[];
  if (records.length === 0) throw new Error('Expected records but received none');
  for (const record of records) {
    checkShape(record, recordShape, 'record');
    for (const limit of record['limits'] as unknown[]) checkShape(limit, limitShape, 'limit');
    if (record['model'] !== null) checkShape(record['model'], modelShape, 'model');
    const { values } = record['value'] as { values: unknown[] };
    if (values.length !== record['num_rounds']) throw new Error(`Expected ${record['num_rounds']} values but received ${values.length}`);
  }
  return records as unknown as JsonRecord[];
}

function checkShape(value: unknown, shape: Shape, where: string): void {
  if (!isObject(value)) throw new Error(`Expected an object for ${where}`);
  const [received, expected] = [Object.keys(value).sort().join(), Object.keys(shape).sort().join()];
  if (received !== expected) throw new Error(`Expected ${expected} for ${where} but received ${received}`);
  for (const [key, kind] of Object.entries(shape)) {
    const inner = value[key];
    if (typeof kind === 'object' && !Array.isArray(kind)) checkShape(inner, kind as Shape, `${where}.${key}`);
    else if (![kind].flat().includes(inner === null ? 'null' : (typeof inner as Kind)))
      throw new Error(`Expected ${String(kind)} for ${where}.${key} but received ${String(inner)}`);
  }
}
