/** The ids that a tokenizer's `post_processor` puts around a text. */
import { isObject } from '../../protocol/checks.ts';
import { describeJson, unexpected } from '../../protocol/errors.ts';

/** Ids before and after a text. */
export interface AroundText {
  readonly before: readonly number[];
  readonly after: readonly number[];
}

type Step = Readonly<Record<string, unknown>>;

function isTokenIds(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((id) => Number.isInteger(id) && id >= 0);
}

/** Flattens `Sequence`. */
function flatten(value: unknown, file: string): Step[] {
  if (value === null || value === undefined) return [];
  if (!isObject(value)) throw unexpected('ERR_TOKENIZER', 'an object as post_processor', file, value, describeJson);
  if (value['type'] !== 'Sequence') return [value];
  const members = value['processors'];
  if (!Array.isArray(members)) throw unexpected('ERR_TOKENIZER', 'a list processors in post_processor', file, members, describeJson);
  return members.flatMap((member) => flatten(member, file));
}

/** Ids of one member of a template, which are the file's own, whatever the vocabulary says; `null` for the text. */
function readItem(item: unknown, tokens: unknown, file: string): readonly number[] | null {
  const { Sequence: sequence, SpecialToken: special } = isObject(item) ? item : {};
  if (isObject(sequence)) return null;
  const name = isObject(special) ? special['id'] : undefined;
  const entry = isObject(tokens) && typeof name === 'string' && Object.hasOwn(tokens, name) ? tokens[name] : undefined;
  const ids = isObject(entry) ? entry['ids'] : undefined;
  if (isTokenIds(ids)) return ids;
  const expected = 'a valid tokenizer, whose TemplateProcessing has the ids of its special_tokens,';
  throw unexpected('ERR_TOKENIZER', expected, file, item, describeJson);
}

function readTemplate({ single, special_tokens: tokens }: Step, file: string): AroundText {
  const items = Array.isArray(single) ? single.map((item) => readItem(item, tokens, file)) : [];
  const at = items.indexOf(null);
  if (at < 0 || items.lastIndexOf(null) !== at) {
    const expected = 'a valid tokenizer, whose TemplateProcessing has the text once,';
    throw unexpected('ERR_TOKENIZER', expected, file, single, describeJson);
  }
  const idsOf = (part: (readonly number[] | null)[]): number[] => part.flatMap((ids) => ids ?? []);
  return { before: idsOf(items.slice(0, at)), after: idsOf(items.slice(at + 1)) };
}

/**
 * Reads `post_processor`.
 * @throws NdsError ERR_TOKENIZER for another kind of step, a broken one, or a second template.
 */
export function readPostProcessor(value: unknown, file: string): AroundText {
  const [template, ...others] = flatten(value, file).filter(({ type }) => type !== 'ByteLevel');
  if (template === undefined) return { before: [], after: [] };
  const wrong = [template, ...others].find(({ type }) => type !== 'TemplateProcessing') ?? others[0];
  if (wrong === undefined) return readTemplate(template, file);
  const expected = 'post_processor ByteLevel or TemplateProcessing, the latter once,';
  throw unexpected('ERR_TOKENIZER', expected, file, wrong['type'], describeJson);
}
