/** Runs model calls on a gang of ranks through the real launcher, and reads their results. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { EmbedOptions, LLMOptions, SamplingParams, ShardReport, SpeculationStats } from '../../rank/index.ts';
import { fixture, ndsrun } from './launcher.ts';

/** Calls on a model that is loaded once. Calls of one round run concurrently, rounds one after another. */
export interface Session {
  readonly model: string;
  readonly options: LLMOptions;
  readonly rounds: readonly (readonly Call[])[];
}

export type Call =
  | { readonly type: 'logits'; readonly promptTokenIds: readonly number[] }
  | { readonly type: 'embed'; readonly promptTokenIds: readonly number[]; readonly options: EmbedOptions }
  | {
      readonly type: 'generate';
      readonly prompt: string | { readonly promptTokenIds: readonly number[] };
      readonly params: SamplingParams;
    };

/** Result of one call: `logits` or `embedding` as base64 of its float32 bytes, or tokens and text. */
export interface Answer {
  readonly logits?: string;
  readonly embedding?: string;
  readonly promptTokenIds?: readonly number[];
  readonly tokenIds?: readonly number[];
  readonly text?: string;
  readonly finishReason?: string;
  /** Per token, in full precision; where the call asks for them. */
  readonly logprobs?: readonly string[];
}

/** Per session. */
export interface JobResult {
  /** Answers in the order of the session's calls, round by round. */
  readonly sessions: readonly (readonly Answer[])[];
  readonly numPreemptions: readonly number[];
  readonly loads: readonly { readonly numBlocks: number; readonly shards: readonly ShardReport[] }[];
  /** Of rank 0. */
  readonly exchangedBytes: readonly number[];
  readonly allReduceBytes: readonly number[];
  /** Null without speculation. */
  readonly speculation: readonly (SpeculationStats | null)[];
}

export function logitsOf(answer: Answer | undefined): Float32Array {
  const bytes = Buffer.from(answer?.logits ?? '', 'base64');
  return new Float32Array(Uint8Array.from(bytes).buffer);
}

/** Runs the sessions on `worldSize` ranks. Rejects with the gang's output when it fails. */
export function runJob(worldSize: number, sessions: readonly Session[], env: Record<string, string> = {}): Promise<JobResult> {
  const onDevice = sessions.map((session) => ({ ...session, options: { ...testDevice(), ...session.options } }));
  return runScript<JobResult>(worldSize, 'job.ts', onDevice, env);
}

/** Runs the sessions of several tests in one launch, as a launch costs more than many sessions. */
export class SharedJob {
  readonly #worldSize: number;
  readonly #sessions: Session[] = [];
  #isLaunched = false;
  #result: Promise<JobResult> | undefined;

  constructor(worldSize: number) {
    this.#worldSize = worldSize;
  }

  /**
   * Adds sessions while tests are declared. The returned function launches the job on its first call, and resolves to
   * the results of these sessions.
   */
  add(sessions: readonly Session[]): () => Promise<JobResult> {
    if (this.#isLaunched) throw new Error('Expected sessions before the launch of their job but received some after it');
    const begin = this.#sessions.length;
    const end = this.#sessions.push(...sessions);
    return async () => {
      // The first test starts while others are still being declared.
      this.#result ??= Promise.resolve().then(() => this.#launch());
      const { sessions, numPreemptions, loads, exchangedBytes, allReduceBytes, speculation } = await this.#result;
      return {
        sessions: sessions.slice(begin, end),
        numPreemptions: numPreemptions.slice(begin, end),
        loads: loads.slice(begin, end),
        exchangedBytes: exchangedBytes.slice(begin, end),
        allReduceBytes: allReduceBytes.slice(begin, end),
        speculation: speculation.slice(begin, end),
      };
    };
  }

  #launch(): Promise<JobResult> {
    this.#isLaunched = true;
    return runJob(this.#worldSize, this.#sessions);
  }
}

/** `NDS_TEST_DEVICE=cuda` runs the same tests on a CUDA device, in its deterministic mode. */
function testDevice(): LLMOptions {
  return process.env['NDS_TEST_DEVICE'] === 'cuda' ? { device: 'cuda', deterministic: true } : {};
}

/** Runs a rank script that reads a job from one JSON file and writes its result to another. Rejects as `runJob`. */
export async function runScript<Result>(
  worldSize: number,
  script: string,
  job: unknown,
  env: Record<string, string> = {},
): Promise<Result> {
  const folder = mkdtempSync(join(tmpdir(), 'nds-job-'));
  try {
    const input = join(folder, 'job.json');
    const out = join(folder, 'out.json');
    writeFileSync(input, JSON.stringify(job));
    // Variables that the user set for the tests, e.g. an instruction set or a device, are for the ranks.
    const { TMPDIR: _, ...inherited } = process.env;
    const args = [`--nproc-per-node=${worldSize}`, fixture(script), input, out];
    const { code, stdout, stderr } = await ndsrun(args, { env: { ...inherited, ...env } });
    if (code !== 0) throw new Error(`ndsrun on ${worldSize} ranks ended with ${code}:\n${stdout}${stderr}`);
    return JSON.parse(readFileSync(out, 'utf8'));
  } finally {
    rmSync(folder, { recursive: true });
  }
}
