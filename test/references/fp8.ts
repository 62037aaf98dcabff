/** Values of float8_e4m3 by its definition, and rounding to bf16, in doubles. */

/** 1 sign, 4 exponent (bias 7) and 3 mantissa bits; all ones is NaN (arXiv:2209.05433). */
export function e4m3(code: number): number {
  const sign = code & 128 ? -1 : 1;
  const exponent = (code >> 3) & 15;
  const fraction = (code & 7) / 8;
  if ((code & 127) === 127) return Number.NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -6 : (1 + fraction) * 2 ** (exponent - 7));
}

/** The nearest bf16, ties to even. */
export function toBf16(value: number): number {
  if (!Number.isFinite(value) || value === 0) return value;
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(value))), -126);
  const unit = 2 ** (exponent - 7);
  const units = value / unit;
  const below = Math.floor(units);
  const isUp = units - below > 0.5 || (units - below === 0.5 && below % 2 !== 0);
  const rounded = (below + (isUp ? 1 : 0)) * unit;
  // The largest bf16 is 0x1.fep127: a value that rounds past it is infinite.
  return Math.abs(rounded) >= 2 ** 128 ? Math.sign(value) * Number.POSITIVE_INFINITY : rounded;
}
