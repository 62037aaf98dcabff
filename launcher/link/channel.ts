/** One authenticated connection between two launchers: frames, signs of life, and its end. */
import type { TLSSocket } from 'node:tls';
import { isObject } from '../../protocol/checks.ts';
import { NdsError } from '../../protocol/errors.ts';
import { encodeFrame, FrameReader } from '../../protocol/frames.ts';

const frameTypes = ['hello', 'waits', 'welcome', 'refused', 'message'] as const;

export interface Frame {
  readonly type: (typeof frameTypes)[number];
  /** Not checked yet. */
  readonly body: unknown;
}

/** A report with the last lines of many ranks. */
const maxFrameBytes = 16 << 20;
/** Unsent bytes at which a peer that does not read is lost. */
const maxUnsentBytes = 64 << 20;
/** Frames that may come before anyone reads them. */
const maxWaitingFrames = 64;
/** How long the last frames may take to leave. */
const closeGraceMs = 1000;

export class Channel {
  readonly #socket: TLSSocket;
  readonly #reader = new FrameReader(maxFrameBytes);
  readonly #waiting: Frame[] = [];
  readonly #closed: Promise<void>;
  #onFrame: ((frame: Frame) => void) | null = null;
  #onLost: ((reason: string) => void) | null = null;
  #beats: NodeJS.Timeout | null = null;
  #lastReceived = performance.now();
  /** Why nothing more comes; null while it may. */
  #end: string | null = null;

  constructor(socket: TLSSocket) {
    this.#socket = socket.setNoDelay(true);
    let cause: string | null = null;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', ({ message, code }: NodeJS.ErrnoException) => {
      cause = code ?? message;
    });
    this.#closed = new Promise((resolve) =>
      socket.once('close', () => {
        this.#lose(cause === null ? 'its launcher ended the connection' : `its connection failed with ${cause}`);
        resolve();
      }),
    );
  }

  /** Address of the peer, as this machine sees it. */
  get remoteAddress(): string {
    return this.#socket.remoteAddress ?? 'an unknown address';
  }

  get localAddress(): string {
    return this.#socket.localAddress ?? '';
  }

  /** No-op after the end. A peer that leaves too much unread is lost. */
  send(type: Frame['type'] | 'beat', body: unknown = null): void {
    if (this.#end !== null) return;
    this.#socket.write(encodeFrame({ type, body }));
    if (this.#socket.writableLength > maxUnsentBytes) this.fail(`it left ${maxUnsentBytes >> 20} MiB unread`);
  }

  /** Hands over the frames that came before, then each as it comes; `onLost` once, and not after `close`. */
  receive(onFrame: (frame: Frame) => void, onLost: (reason: string) => void): void {
    this.#onFrame = onFrame;
    this.#onLost = onLost;
    while (this.#waiting.length > 0 && this.#onFrame === onFrame) this.#guard(() => onFrame(this.#waiting.shift() as Frame));
    if (this.#end !== null) this.#tellLost(this.#end);
  }

  /** Hears of the end only; frames wait. */
  watch(onLost: ((reason: string) => void) | null): void {
    this.#onFrame = null;
    this.#onLost = onLost;
    if (this.#end !== null) this.#tellLost(this.#end);
  }

  /** The next frame, with those after it kept for `receive`. @throws NdsError `ERR_PEER_LOST`. */
  next(): Promise<Frame> {
    return new Promise((resolve, reject) => {
      const onFrame = (frame: Frame): void => {
        this.watch(null);
        resolve(frame);
      };
      this.receive(onFrame, (reason) => reject(new NdsError('ERR_PEER_LOST', reason)));
    });
  }

  /** Sends signs of life from now on, and is lost after `timeoutMs` without one. */
  startBeats(timeoutMs: number): void {
    const intervalMs = timeoutMs / 4;
    this.#lastReceived = performance.now();
    let lastTick = this.#lastReceived;
    this.#beats = setInterval(() => {
      const now = performance.now();
      // What came while this process was stopped is not yet read.
      if (now - lastTick > 2 * intervalMs) this.#lastReceived = now;
      lastTick = now;
      if (now - this.#lastReceived > timeoutMs) return this.fail(`it gave no sign of life for ${timeoutMs / 1000} s`);
      this.send('beat');
    }, intervalMs);
  }

  /** Ends the connection at once; the peer is lost for this reason. */
  fail(reason: string): void {
    this.#lose(reason);
    this.#socket.destroy();
  }

  /** Ends the connection once everything has left, or a peer that does not read had its time. */
  async close(): Promise<void> {
    this.watch(null);
    this.#lose('it was closed');
    this.#socket.end();
    const timer = setTimeout(() => this.#socket.destroy(), closeGraceMs);
    await this.#closed;
    clearTimeout(timer);
  }

  #receive(chunk: Buffer): void {
    if (this.#end !== null) return;
    this.#lastReceived = performance.now();
    this.#guard(() => {
      for (const value of this.#reader.push(chunk)) this.#take(value);
    });
  }

  /** What breaks the protocol ends the connection. */
  #guard(act: () => void): void {
    try {
      act();
    } catch (error) {
      if (!(error instanceof NdsError) || error.code !== 'ERR_PROTOCOL') throw error;
      this.fail(error.message);
    }
  }

  #take(value: unknown): void {
    const { type, body } = isObject(value) ? value : { type: undefined, body: undefined };
    if (type === 'beat' || this.#end !== null) return;
    const known = frameTypes.find((one) => one === type);
    if (known === undefined) {
      throw new NdsError(
        'ERR_PROTOCOL',
        `Expected a known frame between launchers but received type ${JSON.stringify(type)?.slice(0, 80)}`,
      );
    }
    if (this.#onFrame !== null) return this.#onFrame({ type: known, body });
    if (this.#waiting.length >= maxWaitingFrames) throw new NdsError('ERR_PROTOCOL', `Expected at most ${maxWaitingFrames} frames at once`);
    this.#waiting.push({ type: known, body });
  }

  #lose(reason: string): void {
    if (this.#end !== null) return;
    this.#end = reason;
    if (this.#beats !== null) clearInterval(this.#beats);
    this.#tellLost(reason);
  }

  #tellLost(reason: string): void {
    const tell = this.#onLost;
    this.#onLost = null;
    tell?.(reason);
  }
}
