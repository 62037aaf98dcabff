/** Sampling in plain TypeScript: random words by address, and the tokens kept by the filters. */
import { at, type Sample, testing } from '../helpers/testing.ts';

/** Philox4x32-10 (Salmon et al., SC 2011) in 64-bit integers. */
export function philox(counter: readonly number[], key: bigint): number[] {
  const mask = 0xffffffffn;
  let [c0, c1, c2, c3] = [0, 1, 2, 3].map((i) => BigInt(at(counter, i)) & mask) as [bigint, bigint, bigint, bigint];
  let k0 = key & mask;
  let k1 = key >> 32n;
  for (let round = 0; round < 10; round++) {
    const p0 = 0xd2511f53n * c0;
    const p1 = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(p1 >> 32n) ^ c1 ^ k0, p1 & mask, (p0 >> 32n) ^ c3 ^ k1, p0 & mask];
    k0 = (k0 + 0x9e3779b9n) & mask;
    k1 = (k1 + 0xbb67ae85n) & mask;
  }
  return [c0, c1, c2, c3].map(Number);
}

type Address = Pick<Sample, 'seed' | 'position' | 'sampleIndex' | 'stream' | 'round'>;

/** The random words of token ids 4 · block … 4 · block + 3. */
export function randomWords(block: number, { seed, position, sampleIndex, stream = 0, round = 0 }: Address): number[] {
  return philox([block, position, sampleIndex * 256 + stream, round], seed);
}

/** Gumbel noise of these ids at an address: the native function, applied to words computed here. */
export function gumbelNoise(isa: string, ids: readonly number[], address: Address): Float32Array {
  const words = Uint32Array.from(ids, (id) => at(randomWords(id >>> 2, address), id % 4));
  return testing.map({ isa, function: 'gumbel', x: new Float32Array(words.buffer) });
}

/** The ids kept, and the smallest margin by which a filter decided: below about 1e-6, rounding decides. */
export interface Kept {
  readonly ids: readonly number[];
  readonly margin: number;
}

type Filters = Pick<Sample, 'temperature' | 'topK' | 'topP' | 'minP'>;

/** Random filters for a row of `n` logits, each on or off. */
export function randomFilters(integers: (below: number) => number, n: number): Filters {
  return {
    temperature: at([0.5, 1, 2], integers(3)),
    topK: integers(2) * integers(n + 2),
    topP: integers(2) === 0 ? 1 : (1 + integers(99)) / 100,
    minP: integers(3) === 0 ? integers(80) / 100 : 0,
  };
}

/** Logits ÷ temperature, in single precision as in the engine. */
export function scaled(logits: Float32Array, temperature: number): Float32Array {
  return logits.map((logit) => logit / Math.fround(temperature));
}

/** Ids kept by top-k, then top-p, then min-p, likeliest first; each filter applies to what the previous one kept. */
export function keptIds(logits: Float32Array, filters: Filters): Kept {
  const x = scaled(logits, filters.temperature);
  const order = Array.from(x.keys()).filter((id) => !Number.isNaN(at(x, id)));
  order.sort((a, b) => at(x, b) - at(x, a) || a - b);
  const ids = filters.topK > 0 ? order.slice(0, filters.topK) : order;
  const max = at(x, at(ids, 0));
  const weight = (id: number): number => Math.exp(at(x, id) - max);
  const total = ids.reduce((sum, id) => sum + weight(id), 0);
  let margin = 1;
  let count = ids.length;
  if (filters.topP < 1) {
    const target = Math.fround(filters.topP) * total;
    let sum = 0;
    for (count = 0; count < ids.length && sum < target; count++) {
      sum += weight(at(ids, count));
      margin = Math.min(margin, Math.abs(sum - target) / total);
    }
  }
  const nucleus = ids.slice(0, count);
  const minP = Math.fround(filters.minP);
  for (const id of nucleus) if (minP > 0) margin = Math.min(margin, Math.abs(weight(id) / minP - 1));
  return { ids: nucleus.filter((id) => minP === 0 || weight(id) >= minP), margin };
}

/** The id with the largest value + noise in single precision, the lowest of equals; -1 for no ids. */
export function bestOf(isa: string, ids: readonly number[], x: Float32Array, address: Address): number {
  const noise = gumbelNoise(isa, ids, address);
  let best = { id: -1, value: Number.NEGATIVE_INFINITY };
  for (const [i, id] of ids.entries()) {
    const value = Math.fround(at(x, id) + at(noise, i));
    if (value > best.value || (value === best.value && id < best.id)) best = { id, value };
  }
  return best.id;
}
