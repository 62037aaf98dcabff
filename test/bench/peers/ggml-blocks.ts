/**
 * llama.cpp's quantized blocks of weights, as `llama-quantize` makes them: ggml's reference quantizers without importance
 * weights, but for Q6_K, whose scales are not searched for. Pure.
 */

/** A type of tensors in a GGUF file. */
export interface GgmlType {
  /** Its number in the file. */
  readonly id: number;
  /** Values and bytes of a block. */
  readonly blockSize: number;
  readonly blockBytes: number;
  /** Writes one block of `x`, which begins at `at`, to `out`, from `to`; null for bf16, which is written as stored. */
  readonly quantize: ((x: Float32Array, at: number, out: Uint8Array, to: number) => void) | null;
}

const round = Math.fround;
/** Nearest integer, halves away from zero, as C's `roundf`. */
const nearest = (value: number) => Math.trunc(value + (value < 0 ? -0.5 : 0.5));

/** The value of largest magnitude, with its sign. */
function extreme(x: Float32Array, begin: number, count: number): number {
  let found = 0;
  for (let i = begin; i < begin + count; i++) if (Math.abs(x[i] as number) > Math.abs(found)) found = x[i] as number;
  return found;
}

const inverse = (d: number) => (d === 0 ? 0 : round(1 / d));

export const ggmlTypes = {
  F32: {
    id: 0,
    blockSize: 1,
    blockBytes: 4,
    quantize(x, at, out, to) {
      bits.setFloat32(0, x[at] as number);
      for (let i = 0; i < 4; i++) out[to + i] = bits.getUint8(3 - i);
    },
  },
  /** 32 values: an fp16 scale, then 16 bytes, of which byte i has value i in its low half and value i + 16 in its high one. */
  Q4_0: {
    id: 2,
    blockSize: 32,
    blockBytes: 18,
    quantize(x, at, out, to) {
      const d = round(extreme(x, at, 32) / -8);
      const id = inverse(d);
      const four = (i: number) => Math.min(15, Math.trunc(round(round((x[at + i] as number) * id) + 8.5)));
      setHalf(out, to, d);
      for (let i = 0; i < 16; i++) out[to + 2 + i] = four(i) | (four(i + 16) << 4);
    },
  },
  /** 32 values: an fp16 scale, then 32 signed bytes. */
  Q8_0: {
    id: 8,
    blockSize: 32,
    blockBytes: 34,
    quantize(x, at, out, to) {
      const d = round(Math.abs(extreme(x, at, 32)) / 127);
      const id = inverse(d);
      setHalf(out, to, d);
      for (let i = 0; i < 32; i++) out[to + 2 + i] = nearest(round((x[at + i] as number) * id));
    },
  },
  /**
   * 256 values as unsigned six bits less 32: 128 bytes of low four bits, 64 of high two, 16 signed scales of 16 values each,
   * and their fp16 scale. In each half of 128 values, byte i of 64 low ones has values i and i + 64, and byte i of 32 high
   * ones values i, i + 32, i + 64 and i + 96.
   */
  Q6_K: {
    id: 14,
    blockSize: 256,
    blockBytes: 210,
    quantize(x, at, out, to) {
      const scales = Array.from({ length: 16 }, (_, i) => extreme(x, at + 16 * i, 16) / -32);
      const largest = scales.reduce((found, scale) => (Math.abs(scale) > Math.abs(found) ? scale : found), 0);
      const d = floatOfHalf(halfOf(round(largest / -128)));
      const factors = scales.map((scale) => (d === 0 ? 0 : Math.max(-128, Math.min(127, nearest(scale / d)))));
      const six = (i: number) => {
        const step = d * (factors[i >> 4] as number);
        return 32 + (step === 0 ? 0 : Math.max(-32, Math.min(31, nearest((x[at + i] as number) / step))));
      };
      for (const half of [0, 1]) {
        for (let i = 0; i < 64; i++) {
          const [low, high] = [six(128 * half + i), six(128 * half + i + 64)];
          out[to + 64 * half + i] = (low & 15) | ((high & 15) << 4);
        }
        for (let i = 0; i < 32; i++) {
          const place = 128 * half + i;
          const high = (six(place) >> 4) | ((six(place + 32) >> 4) << 2) | ((six(place + 64) >> 4) << 4) | ((six(place + 96) >> 4) << 6);
          out[to + 128 + 32 * half + i] = high;
        }
      }
      out.set(factors, to + 192);
      setHalf(out, to + 208, d);
    },
  },
  BF16: { id: 30, blockSize: 1, blockBytes: 2, quantize: null },
} as const satisfies Record<string, GgmlType>;

const bits = new DataView(new ArrayBuffer(4));

/** The fp16 bits nearest to a float, ties to even. */
export function halfOf(value: number): number {
  bits.setFloat32(0, value);
  const sign = (bits.getUint8(0) & 0x80) << 8;
  const size = Math.abs(value);
  if (size >= 65520) return sign | 0x7c00;
  // The unit of the last place: 2^-24 for subnormals, else 2^-10 of the leading power of two.
  const power = size < 2 ** -14 ? -14 : ((bits.getUint16(0) >> 7) & 0xff) - 127;
  const count = size / 2 ** (power - 10);
  const floor = Math.floor(count);
  const rest = count - floor;
  const whole = rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
  // A carry out of the fraction adds one to the exponent, as it should.
  return sign | (((size < 2 ** -14 ? 0 : power + 14) << 10) + whole);
}

function setHalf(out: Uint8Array, to: number, value: number): void {
  const half = halfOf(value);
  out[to] = half;
  out[to + 1] = half >> 8;
}

function floatOfHalf(half: number): number {
  const [exponent, fraction] = [(half >> 10) & 31, half & 1023];
  const size = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
  return half & 0x8000 ? -size : size;
}
