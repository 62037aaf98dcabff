/** A rank's socket to its launcher. */
import { EventEmitter, once } from 'node:events';
import { Socket } from 'node:net';
import { ControlReader, encodeControl, type GangInfo, type ToLauncher, type ToRank } from '../../protocol/control.ts';
import { type Deferred, deferred } from '../../protocol/deferred.ts';
import type { FailureRecord } from '../../protocol/failure.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';

/** Emits `gang` when an epoch begins and `lost` when one has lost a follower and another will begin. */
export class Control extends EventEmitter<{ gang: [GangInfo]; lost: [FailureRecord] }> {
  readonly #socket: Socket;
  readonly #reader = ControlReader.ofRank();
  /** Of the newest epoch. */
  readonly #published = new Map<string, string>();
  readonly #waiting = new Map<string, Deferred<string>>();
  #gang: GangInfo | null = null;
  #isLost = false;

  /** The control socket of this process, opened on the first call. */
  static #opened: Control | undefined;

  static open(env: Pick<RankEnv, 'controlFd'>): Control {
    Control.#opened ??= new Control(env.controlFd);
    return Control.#opened;
  }

  private constructor(fd: number) {
    super();
    this.#socket = new Socket({ fd, readable: true, writable: true });
    this.#socket.on('data', (chunk) => {
      for (const message of this.#reader.push(chunk)) this.#on(message);
    });
    // The launcher's end is noticed by the guard, whatever JavaScript does.
    this.#socket.on('error', () => {});
    // An idle rank must be able to end.
    this.#socket.unref();
  }

  /** The epoch that runs; null before the first, and from a loss until the next. */
  get live(): GangInfo | null {
    return this.#isLost ? null : this.#gang;
  }

  /** The newest epoch; waits for one that runs. */
  async gang(): Promise<GangInfo> {
    // One chunk may hold the end of an epoch and the start of the next.
    for (;;) {
      if (this.live !== null) return this.live;
      this.#socket.ref();
      await once(this, 'gang');
    }
  }

  /** Tells the ranks of all nodes in `epoch`; no-op in a later one. */
  publish(epoch: number, key: string, value: string): void {
    if (epoch === this.#epoch) this.#send({ type: 'publish', epoch, key, value });
  }

  /** What a rank has published under a key in `epoch`; waits for it. A wait ends with its epoch, unsettled. */
  published(epoch: number, key: string): Promise<string> {
    const value = this.#published.get(key);
    if (epoch === this.#epoch && value !== undefined) return Promise.resolve(value);
    if (epoch !== this.#epoch) return new Promise(() => {});
    const waiting = this.#waiting.get(key);
    if (waiting !== undefined) return waiting.promise;
    const next = deferred<string>();
    this.#waiting.set(key, next);
    this.#socket.ref();
    return next.promise;
  }

  /** Tells the launcher that this rank has loaded a model. */
  ready(): void {
    this.#send({ type: 'ready', epoch: this.#epoch });
  }

  get #epoch(): number {
    return this.#gang?.epoch ?? 0;
  }

  #send(message: ToLauncher): void {
    this.#socket.write(encodeControl(message));
  }

  #on(message: ToRank): void {
    if (message.type === 'gang') {
      this.#gang = message.gang;
      this.#isLost = false;
      this.#published.clear();
      this.#waiting.clear();
      this.#socket.unref();
      this.emit('gang', message.gang);
    } else if (message.type === 'lost') {
      if (message.epoch !== this.#epoch || this.#isLost) return;
      this.#isLost = true;
      this.emit('lost', message.failure);
    } else if (message.epoch === this.#epoch) {
      this.#published.set(message.key, message.value);
      this.#waiting.get(message.key)?.resolve(message.value);
      this.#waiting.delete(message.key);
      if (this.#waiting.size === 0) this.#socket.unref();
    }
  }
}
