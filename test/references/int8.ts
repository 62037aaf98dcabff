/** The int8 KV cache in plain TypeScript: a row is the K or V of one token and KV head, as integers and a scale. */
import { at } from '../helpers/testing.ts';

/** Nearest integer, ties to even. */
function nearestEven(x: number): number {
  const below = Math.floor(x);
  const fraction = x - below;
  return fraction < 0.5 || (fraction === 0.5 && below % 2 === 0) ? below : below + 1;
}

/** scale = max |x| / 127, integers = round(x / scale), in single precision; a row of zeros has scale 0. */
export function quantizeRow(row: Float32Array): { integers: Float32Array; scale: number } {
  const most = row.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  const scale = Math.fround(most / 127);
  const quotient = (x: number) => nearestEven(Math.fround(x / scale));
  return { integers: row.map((x) => (scale === 0 ? 0 : Math.max(-127, Math.min(127, quotient(x))))), scale };
}

/** Rows of `width` as the cache returns them, in double precision. */
export function throughInt8(rows: Float32Array, width: number): Float64Array {
  const out = new Float64Array(rows.length);
  for (let begin = 0; begin < rows.length; begin += width) {
    const { integers, scale } = quantizeRow(rows.subarray(begin, begin + width));
    for (let d = 0; d < width; d++) out[begin + d] = at(integers, d) * scale;
  }
  return out;
}
