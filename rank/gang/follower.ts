/** Ranks other than 0: load, run and unload on rank 0's command, until it ends. */
import { NdsError, toNdsError } from '../../protocol/errors.ts';
import { hasRankEnded, readFailure } from '../../protocol/failure.ts';
import { type LoadMessage, type ModelSource, progressMs } from '../../protocol/messages.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';
import { viewResult } from '../../protocol/step-result.ts';
import { readModel } from '../model/index.ts';
import type { Runner } from '../native.ts';
import { noTrace, openPart, type Trace } from '../observe/trace.ts';
import { savesEnded } from '../shard-cache/shard-file.ts';
import { Control } from './control.ts';
import { findModel } from './find-model.ts';
import { type FollowerLink, openLink, type Received } from './follower-link.ts';
import { measureMemory } from './measure.ts';
import { openPlace, type RankPlace } from './place.ts';
import { ownIdentity, RankRunner } from './rank-runner.ts';
import { onSignals } from './stop-signals.ts';

/** Time for an uncaught error to end the process, before it is forced to exit. */
const errorGraceMs = 1000;
const pollMs = 500;

let following: Promise<never> | undefined;

/**
 * Turns this process into a follower, once. Never returns: the process exits with 0 when rank 0 ends, or with the exit
 * code of its own error, after reporting that to rank 0.
 */
export function follow(env: RankEnv): Promise<never> {
  following ??= start(env);
  return following;
}

async function start(env: RankEnv): Promise<never> {
  // Anything the script left running must not outlive rank 0.
  const end = () => process.exit(0);
  const gang = await Control.open(env).gang();
  // Referenced, since Node exits on a pending await alone. Polled, since rank 0 may end before it opens a socket.
  setInterval(() => hasRankEnded(gang.runDir, 0) && end(), pollMs);
  // Rank 0 decides when to stop, unless a rank has failed.
  onSignals(() => (readFailure(gang.runDir) === null ? 'handled' : 'default'));
  const link = await openLink(env, gang, ownIdentity(), end);
  await new Follower(env, link, openPlace(env, gang, new AbortController().signal)).run();
  return new Promise<never>(() => {});
}

class Follower {
  readonly #env: RankEnv;
  readonly #link: FollowerLink;
  readonly #place: Promise<RankPlace>;
  /** Folders on this node of rank 0's models, by their paths there. */
  readonly #folders = new Map<string, string>();
  #runner: Runner | null = null;
  #trace: Trace = noTrace;
  #lastStep: Promise<unknown> = Promise.resolve();
  #hasFailed = false;

  constructor(env: RankEnv, link: FollowerLink, place: Promise<RankPlace>) {
    this.#env = env;
    this.#link = link;
    this.#place = place;
    // A failure is reported by the load that needs it.
    place.catch(() => {});
  }

  async run(): Promise<void> {
    try {
      for await (const received of this.#link.messages()) await this.#handle(received);
    } catch (error) {
      await this.#fail(error);
    }
  }

  async #handle({ message, frame }: Received): Promise<void> {
    if (message.type === 'probe') return this.#probe(message.device);
    if (message.type === 'find') return this.#find(message.models);
    if (message.type === 'load') return this.#load(message);
    if (this.#runner === null) throw new NdsError('ERR_PROTOCOL', `Expected a load before '${message.type}'`);
    if (message.type === 'unload') return this.#unload(this.#runner);
    // Not awaited: plans queue on the executor thread, and the next is received while this one runs.
    const result = this.#runner.submit(message.step, Int32Array.from(message.directory), frame as Uint8Array);
    this.#lastStep = result.then(
      ({ directory, bytes }) => this.#trace.isOn && this.#trace.step(message.step, viewResult(directory, bytes)),
      (error) => this.#onStepError(error),
    );
  }

  #probe(device: 'cpu' | 'cuda'): void {
    this.#link.send({ type: 'probed', rank: this.#env.rank, memory: measureMemory(device, this.#env) });
  }

  /** Ranks of rank 0's node use its folders. */
  async #find(models: readonly ModelSource[]): Promise<void> {
    const { rank, groupRank } = this.#env;
    let sentAt = Number.NEGATIVE_INFINITY;
    const onBytes = (loadedBytes: number) => {
      if (performance.now() - sentAt < progressMs) return;
      sentAt = performance.now();
      this.#link.send({ type: 'progress', rank, loadedBytes });
    };
    if (groupRank > 0) for (const model of models) this.#folders.set(model.path, await findModel(model, this.#env, onBytes));
    this.#link.send({ type: 'found', rank });
  }

  async #load(asSent: LoadMessage): Promise<void> {
    if (this.#runner !== null) throw new NdsError('ERR_PROTOCOL', 'Expected an unload before the next load');
    const here = <T extends { readonly model: string }>(load: T): T => ({ ...load, model: this.#folders.get(load.model) ?? load.model });
    const message = { ...here(asSent), draft: asSent.draft && here(asSent.draft) };
    const own = new RankRunner(readModel(message.model), message, await this.#place);
    this.#trace = message.trace ? openPart(this.#env) : noTrace;
    this.#trace.program(own.ops, own.draftOps);
    const report = await own.load((loadedBytes) => this.#link.send({ type: 'progress', rank: this.#env.rank, loadedBytes }));
    this.#runner = own.runner;
    this.#link.send({ type: 'loaded', rank: this.#env.rank, shard: report });
  }

  async #unload(runner: Runner): Promise<void> {
    // Rank 0 has its results, but this rank may still be in the last collective.
    await this.#lastStep;
    await runner.close();
    await savesEnded();
    this.#runner = null;
    this.#trace.close();
    this.#link.send({ type: 'unloaded', rank: this.#env.rank });
  }

  async #onStepError(error: unknown): Promise<void> {
    // Another rank left in mid-step and is the cause; the launcher or rank 0 ends this one.
    if (toNdsError(error).code !== 'ERR_CLOSED') await this.#fail(error);
  }

  /** Reports the first error to rank 0, then throws it uncaught. */
  async #fail(cause: unknown): Promise<void> {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    const error = toNdsError(cause);
    this.#link.send({ type: 'error', rank: this.#env.rank, code: error.code, message: error.message });
    await this.#link.flush();
    setImmediate(() => {
      throw error;
    });
    // The script's handler may swallow it; the rank is lost nevertheless.
    setTimeout(() => process.exit(error.exitCode), errorGraceMs);
  }
}
