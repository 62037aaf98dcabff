/** Control messages as bytes: msgpack of plain values only, fully checked before decoding. */
import { Packr, Unpackr } from 'msgpackr/pack';
import { NdsError } from './errors.ts';

const packr = new Packr({ useRecords: false });
const unpackr = new Unpackr({ useRecords: false, int64AsType: 'number' });

/** Max nesting depth of a message; ours need 3. */
const maxDepth = 16;

/** Encodes a plain value: null, boolean, number, string, array, or object of these. */
export function encodePlain(value: unknown): Uint8Array {
  return packr.pack(value);
}

/**
 * Decodes one plain value that fills `bytes` exactly.
 * @throws NdsError `ERR_PROTOCOL` for extensions, records and structured clones (msgpackr builds objects from those),
 * lengths past the end, trailing bytes and deep nesting; nothing is allocated before the check.
 */
export function decodePlain(bytes: Uint8Array): unknown {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = skipValue(view, 0, 0);
  if (end !== bytes.byteLength) throw bad(`one value of ${bytes.byteLength} bytes`, `one that ends at byte ${end}`);
  return unpackr.unpack(bytes);
}

function bad(expected: string, received: string): NdsError {
  return new NdsError('ERR_PROTOCOL', `Expected ${expected} for a control message but received ${received}`);
}

/** Offset past the value at `at`. */
function skipValue(view: DataView, at: number, depth: number): number {
  if (depth > maxDepth) throw bad(`at most ${maxDepth} levels`, 'deeper nesting');
  const tag = readUint(view, at, 1);
  if (tag <= 0x7f || tag >= 0xe0) return at + 1;
  if (tag <= 0x8f) return skipEntries(view, at + 1, tag & 15, depth);
  if (tag <= 0x9f) return skipValues(view, at + 1, tag & 15, depth);
  if (tag <= 0xbf) return skipBytes(view, at + 1, tag & 31);
  const body = at + 1;
  switch (tag) {
    case 0xc0: // null
    case 0xc2:
    case 0xc3: // false, true
      return body;
    case 0xca: // float32, float64
    case 0xcb:
      return skipBytes(view, body, 4 << (tag - 0xca));
    case 0xcc: // uint 8 … 64
    case 0xcd:
    case 0xce:
    case 0xcf:
      return skipBytes(view, body, 1 << (tag - 0xcc));
    case 0xd0: // int 8 … 64
    case 0xd1:
    case 0xd2:
    case 0xd3:
      return skipBytes(view, body, 1 << (tag - 0xd0));
    case 0xd9: // str 8 … 32
    case 0xda:
    case 0xdb: {
      const width = 1 << (tag - 0xd9);
      return skipBytes(view, body + width, readUint(view, body, width));
    }
    case 0xdc: // array 16, 32
    case 0xdd: {
      const width = 2 << (tag - 0xdc);
      return skipValues(view, body + width, readUint(view, body, width), depth);
    }
    case 0xde: // map 16, 32
    case 0xdf: {
      const width = 2 << (tag - 0xde);
      return skipEntries(view, body + width, readUint(view, body, width), depth);
    }
    default:
      throw bad('plain msgpack', `type byte 0x${tag.toString(16)}`);
  }
}

function skipValues(view: DataView, at: number, count: number, depth: number): number {
  if (count > view.byteLength - at) throw bad(`at most ${view.byteLength - at} values`, `a length of ${count}`);
  let end = at;
  for (let i = 0; i < count; i++) end = skipValue(view, end, depth + 1);
  return end;
}

/** Keys are strings, since msgpackr refuses others by an error of its own, or makes strings of them. */
function skipEntries(view: DataView, at: number, count: number, depth: number): number {
  if (count * 2 > view.byteLength - at) throw bad(`at most ${view.byteLength - at} values`, `a length of ${count * 2}`);
  let end = at;
  for (let i = 0; i < count; i++) {
    const tag = readUint(view, end, 1);
    if ((tag & 0xe0) !== 0xa0 && (tag < 0xd9 || tag > 0xdb)) throw bad('a string as a key', `type byte 0x${tag.toString(16)}`);
    end = skipValue(view, skipValue(view, end, depth + 1), depth + 1);
  }
  return end;
}

function skipBytes(view: DataView, at: number, length: number): number {
  if (length > view.byteLength - at) throw bad(`at most ${Math.max(0, view.byteLength - at)} bytes`, `a length of ${length}`);
  return at + length;
}

function readUint(view: DataView, at: number, width: number): number {
  skipBytes(view, at, width);
  if (width === 1) return view.getUint8(at);
  return width === 2 ? view.getUint16(at) : view.getUint32(at);
}
