/** Elements of stored tensors as numbers. */
import type { DType } from '../../rank/program-spec.ts';

const scratch = new DataView(new ArrayBuffer(4));

function widen(bits: number, dtype: 'bfloat16' | 'float16'): number {
  if (dtype === 'bfloat16') {
    scratch.setUint16(0, bits);
    return scratch.getFloat32(0);
  }
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15));
}

/** An element of a stored tensor. */
export function readElement(file: Buffer, byteOffset: number, index: number, dtype: DType): number {
  if (dtype === 'float32') return file.readFloatLE(byteOffset + index * 4);
  return widen(file.readUInt16LE(byteOffset + index * 2), dtype);
}
