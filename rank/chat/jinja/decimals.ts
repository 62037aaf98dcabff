/** Floats written with a number of digits, rounded as exact numbers: ties go to the even digit. */
import { exponentOf } from './text.ts';

/** A non-negative float as `0.digits * 10 ** point`, exactly; no digits for 0. */
interface Decimal {
  readonly digits: string;
  readonly point: number;
}

function exactDecimal(value: number): Decimal {
  if (value === 0) return { digits: '', point: 0 };
  const bits = new DataView(new ArrayBuffer(8));
  bits.setFloat64(0, value);
  const field = Number(bits.getBigUint64(0) >> 52n) & 0x7ff;
  const fraction = bits.getBigUint64(0) & 0xfffffffffffffn;
  const mantissa = field === 0 ? fraction : fraction | 0x10000000000000n;
  const exponent = (field === 0 ? 1 : field) - 1075;
  const whole = exponent >= 0 ? mantissa << BigInt(exponent) : mantissa * 5n ** BigInt(-exponent);
  const digits = whole.toString();
  return { digits: digits.replace(/0+$/, ''), point: digits.length + Math.min(0, exponent) };
}

/** Keeps `count` digits. */
function roundDigits({ digits, point }: Decimal, count: number): Decimal {
  if (count >= digits.length) return { digits: digits.padEnd(count, '0'), point };
  if (count < 0) return { digits: '', point };
  const kept = digits.slice(0, count);
  const rest = digits.slice(count);
  const isOdd = count > 0 && Number(kept.at(-1)) % 2 === 1;
  const isUp = rest > '5' || (rest === '5' && isOdd);
  if (!isUp) return { digits: kept, point };
  const next = (BigInt(`0${kept}`) + 1n).toString().padStart(count, '0');
  return next.length > count ? { digits: count === 0 ? next : next.slice(0, count), point: point + 1 } : { digits: next, point };
}

/** `'%.{digits}f'` of a finite, non-negative float. */
export function fixed(value: number, digits: number): string {
  const decimal = exactDecimal(value);
  const count = decimal.digits === '' ? 0 : decimal.point + digits;
  const rounded = roundDigits(decimal, count);
  const all = rounded.digits === '' ? '' : rounded.digits.padEnd(Math.max(0, rounded.point + digits), '0');
  const padded = all.padStart(digits + 1, '0');
  return digits === 0 ? padded : `${padded.slice(0, padded.length - digits)}.${padded.slice(padded.length - digits)}`;
}

/** `'%.{digits}e'` of a finite, non-negative float. */
export function scientific(value: number, digits: number): string {
  const { mantissa, exponent } = split(value, digits + 1);
  return (digits === 0 ? mantissa : `${mantissa.slice(0, 1)}.${mantissa.slice(1)}`) + exponentOf(exponent);
}

function split(value: number, count: number): { mantissa: string; exponent: number } {
  if (value === 0) return { mantissa: '0'.repeat(count), exponent: 0 };
  const { digits, point } = roundDigits(exactDecimal(value), count);
  return { mantissa: digits.padEnd(count, '0'), exponent: point - 1 };
}

/** `'%.{digits}g'` of a finite, non-negative float; `keepsZeros` is the `#` of the format. */
export function general(value: number, digits: number, keepsZeros: boolean): string {
  const count = Math.max(1, digits);
  const { mantissa, exponent } = split(value, count);
  if (exponent < -4 || exponent >= count) {
    const text = count === 1 ? mantissa : trimZeros(`${mantissa.slice(0, 1)}.${mantissa.slice(1)}`, keepsZeros);
    return text + exponentOf(exponent);
  }
  return trimZeros(fixed(value, count - 1 - exponent), keepsZeros);
}

function trimZeros(text: string, keepsZeros: boolean): string {
  return keepsZeros || !text.includes('.') ? text : text.replace(/\.?0+$/, '');
}

/** Python's `round(value, digits)` of a float. */
export function roundFloat(value: number, digits: number): number {
  if (!Number.isFinite(value) || value === 0 || digits > 323) return value;
  const sign = value < 0 ? -1 : 1;
  if (digits >= 0) return sign * Number(fixed(Math.abs(value), digits));
  const { digits: kept, point } = roundDigits(exactDecimal(Math.abs(value)), exactDecimal(Math.abs(value)).point + digits);
  return sign * (kept === '' ? 0 : Number(`${kept}e${point - kept.length}`));
}
