/** The CURVE keys that each channel admits, by ZAP (https://rfc.zeromq.org/spec/27/). */
import { type Context, Reply } from 'zeromq';
import { NdsError } from '../../protocol/errors.ts';
import type { Channel } from './transport.ts';

const digits = '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#';
const keyBytes = 32;

/** Answers for the sockets of one context, until closed. Without it they admit nobody. */
export class AllowList {
  readonly #socket: Reply;
  /** Keys as hexadecimal. */
  readonly #keys: ReadonlyMap<string, ReadonlySet<string>>;

  /** @param keys - keys in Z85 by channel. @throws NdsError `ERR_PROTOCOL` for one that is none. */
  constructor(context: Context, keys: ReadonlyMap<Channel, readonly string[]>) {
    this.#keys = new Map([...keys].map(([channel, list]) => [channel, new Set(list.map((key) => decodeKey(key).toString('hex')))]));
    this.#socket = new Reply({ context, linger: 0 });
  }

  /** Must have settled before a socket of the context is bound. */
  async open(): Promise<void> {
    await this.#socket.bind('inproc://zeromq.zap.01');
    this.#serve().catch(() => {}); // closed
  }

  close(): void {
    this.#socket.close();
  }

  async #serve(): Promise<void> {
    for await (const [version, requestId, domain, , , mechanism, key] of this.#socket) {
      const isAdmitted = String(mechanism) === 'CURVE' && this.#keys.get(String(domain))?.has(key?.toString('hex') ?? '') === true;
      const [status, text] = isAdmitted ? ['200', 'OK'] : ['400', 'Unknown key'];
      await this.#socket.send([version as Buffer, requestId as Buffer, status as string, text as string, '', '']);
    }
  }
}

/** Z85 (https://rfc.zeromq.org/spec/32/): five digits of base 85 for each four bytes. */
function decodeKey(text: string): Buffer {
  const key = Buffer.alloc(keyBytes);
  const values = Array.from(text, (digit) => digits.indexOf(digit));
  const words = Array.from({ length: keyBytes / 4 }, (_, i) => values.slice(i * 5, i * 5 + 5).reduce((sum, value) => sum * 85 + value, 0));
  if (values.length !== (keyBytes / 4) * 5 || values.includes(-1) || words.some((word) => word > 0xffffffff)) {
    throw new NdsError('ERR_PROTOCOL', `Expected a CURVE key of 40 characters in Z85 but received "${text.slice(0, 40)}"`);
  }
  words.forEach((word, i) => key.writeUInt32BE(word, i * 4));
  return key;
}
