/** ZeroMQ's text of binary keys (https://rfc.zeromq.org/spec/32/): five digits of base 85 for each four bytes. */

const digits = '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#';

/** @param bytes - whole groups of four */
export function encodeZ85(bytes: Buffer): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 4) {
    let value = bytes.readUInt32BE(at);
    let group = '';
    for (let i = 0; i < 5; i++) {
      group = digits[value % 85] + group;
      value = Math.floor(value / 85);
    }
    text += group;
  }
  return text;
}

/** Null where the text is not that of `numBytes` bytes. */
export function decodeZ85(text: string, numBytes: number): Buffer | null {
  const bytes = Buffer.alloc(numBytes);
  const values = Array.from(text, (digit) => digits.indexOf(digit));
  const words = Array.from({ length: numBytes / 4 }, (_, i) => values.slice(i * 5, i * 5 + 5).reduce((sum, value) => sum * 85 + value, 0));
  if (values.length !== (numBytes / 4) * 5 || values.includes(-1) || words.some((word) => word > 0xffffffff)) return null;
  words.forEach((word, i) => bytes.writeUInt32BE(word, i * 4));
  return bytes;
}
