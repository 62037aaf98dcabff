/** The sampling parameters of a chat, set by name and text. */
import { NdsError } from '../../protocol/errors.ts';
import type { SamplingParams } from '../../rank/index.ts';
import { resolveSamplingParams, samplingRows } from '../../rank/request/sampling-params.ts';
import { near } from './near.ts';

type Name = keyof typeof samplingRows;

/** Parameters that one streamed answer does not have. */
const refused: readonly string[] = ['n', 'logprobs', 'promptLogprobs'] satisfies Name[];
const names = (Object.keys(samplingRows) as Name[]).filter((name) => !refused.includes(name));

export class ChatParameters {
  readonly #initial: SamplingParams;
  #current: SamplingParams;

  /** @throws NdsError `ERR_REQUEST` for a parameter out of range. */
  constructor(initial: SamplingParams) {
    resolveSamplingParams(initial);
    this.#initial = initial;
    this.#current = initial;
  }

  get current(): SamplingParams {
    return this.#current;
  }

  /**
   * Sets one parameter. `name` is in any spelling: `max-tokens`, `max_tokens`, `maxTokens`. `default` restores what the
   * chat began with.
   *
   * @returns the line that says what is set
   * @throws NdsError `ERR_REQUEST` naming a parameter that is unknown, of a wrong type or out of range.
   */
  set(spelling: string, text: string): string {
    const name = this.#named(spelling);
    const value = text === 'default' ? this.#initial[name] : parsed(name, text);
    const next: SamplingParams = { ...this.#current, [name]: value };
    resolveSamplingParams(next);
    this.#current = next;
    return `${kebab(name)} ${value === undefined ? 'is the default' : shown(value)}`;
  }

  /** One line for each parameter that is set. */
  describe(): string {
    const set = names.filter((name) => this.#current[name] !== undefined);
    const unset = names.filter((name) => this.#current[name] === undefined);
    const lines = set.map((name) => `${kebab(name).padEnd(28)} ${shown(this.#current[name])}\n`);
    return `${lines.join('')}${lines.length === 0 ? '' : 'not set: '}${unset.map(kebab).join(', ')}\n`;
  }

  #named(spelling: string): Name {
    const plain = (name: string) => name.replace(/[-_]/g, '').toLowerCase();
    const found = names.find((name) => plain(name) === plain(spelling));
    if (found !== undefined) return found;
    if (refused.some((name) => plain(name) === plain(spelling))) {
      throw new NdsError('ERR_REQUEST', `Expected a parameter of one answer but received ${spelling}, which ndsrun generate takes`);
    }
    const hint = near(kebab(spelling), names.map(kebab)) || ' (/set shows them)';
    throw new NdsError('ERR_REQUEST', `Expected a sampling parameter but received ${spelling}${hint}`);
  }
}

/** JSON where it is some; `stop` and `bad-words` take plain text too, a seed all of its 64 bits. */
function parsed(name: Name, text: string): unknown {
  if (name === 'seed' && /^\d+$/.test(text)) return BigInt(text);
  const value = parseJson(text);
  if (name !== 'stop' && name !== 'badWords') return value;
  const isList = Array.isArray(value) || typeof value === 'string';
  const list = isList ? value : text;
  return typeof list === 'string' ? [list] : list;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function shown(value: unknown): string {
  return typeof value === 'bigint' ? String(value) : JSON.stringify(value);
}

function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
