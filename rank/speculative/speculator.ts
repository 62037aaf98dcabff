/** Decides each step's drafts per sequence. */
import type { ScheduledBatch } from '../scheduler/batch.ts';
import type { Drafter, DraftRoom } from '../scheduler/drafter.ts';
import type { StepTimings } from '../scheduler/result-reader.ts';
import type { Drafting, Sequence } from '../scheduler/sequence.ts';
import { type Candidate, Candidates, type DraftLimits } from './candidates.ts';
import type { ResolvedSpeculativeConfig } from './config.ts';
import { SpeculationCounts, type SpeculationStats } from './counts.ts';
import { type DraftDecision, type DraftOutcome, DraftPolicy } from './policy/draft-policy.ts';
import { emptyPass } from './policy/pass-costs.ts';
import { type MeasuredStep, StepCosts } from './policy/step-costs.ts';

/** A decision and the candidates that it was made for. */
interface Choice {
  readonly candidates: readonly Candidate[];
  readonly decision: DraftDecision;
  /** Steps planned by it. */
  numPlanned: number;
  /** Whether a step of it has been measured: one of each decision is, since learning takes time. */
  isMeasured: boolean;
}

/** Max steps per decision, while the same sequences decode: deciding takes time, and estimates move slowly. */
const HELD_STEPS = 32;
/** Max gap between steps that counts as host time, in seconds on top of the step's own: a longer one is idle time. */
const IDLE_SECONDS = 1e-3;

export class Speculator implements Drafter {
  readonly #config: ResolvedSpeculativeConfig;
  readonly #costs = new StepCosts();
  /** Whether any decision depends on step costs. */
  readonly #usesCosts: boolean;
  readonly #candidates: Candidates;
  readonly #policy: DraftPolicy;
  readonly #counts = new SpeculationCounts();
  #chosen: Choice | null = null;
  /** The last decision. */
  #held: Choice | null = null;
  readonly #planned = new Map<ScheduledBatch, Choice>();
  #lastEnd = 0;

  constructor(config: ResolvedSpeculativeConfig, draftLimits: DraftLimits | null) {
    this.#config = config;
    this.#usesCosts = config.adaptiveK || config.methods.length > 1;
    this.#candidates = new Candidates(config, draftLimits, this.#costs);
    this.#policy = new DraftPolicy({ costs: this.#costs, adaptive: config.adaptiveK });
  }

  /** Totals over all sequences so far. */
  get stats(): SpeculationStats {
    return this.#counts.snapshot;
  }

  /** Observes a step that was run only to be measured. */
  learn(step: MeasuredStep): void {
    this.#costs.observe(step);
  }

  choose(sequences: readonly Sequence[], room: DraftRoom): ReadonlyMap<Sequence, Drafting | 'wait'> {
    const mostDrafts = Math.min(room.numTokens, room.numLogitRows);
    return this.#repeat(sequences, mostDrafts) ?? this.#decide(sequences, room, mostDrafts);
  }

  #decide(sequences: readonly Sequence[], room: DraftRoom, mostDrafts: number): ReadonlyMap<Sequence, Drafting | 'wait'> {
    const chosen = new Map<Sequence, Drafting | 'wait'>();
    const candidates: Candidate[] = [];
    let numDraftRows = this.#candidates.maxDraftRows;
    for (const sequence of sequences) {
      const candidate = this.#candidates.of(sequence, sequences.length, numDraftRows);
      if (candidate === 'wait') chosen.set(sequence, 'wait');
      else candidates.push(candidate);
      if (candidate !== 'wait' && candidate.source === 'draft_model' && candidate.most > 0) numDraftRows -= candidate.catchUpTokens;
    }
    const { adaptiveK } = this.#config;
    const numOtherRows = adaptiveK ? Math.min(room.numTokens, room.numPromptTokens()) : 0;
    const decision = this.#policy.decide({ candidates, numOtherRows, mostDrafts }, this.#held?.numPlanned ?? 1);
    this.#chosen = { candidates, decision, numPlanned: 0, isMeasured: false };
    const isHeld = adaptiveK && !decision.isTrial && candidates.every(({ source }) => source === 'draft_model');
    this.#held = isHeld ? this.#chosen : null;
    for (const [r, { sequence, tokenIds }] of candidates.entries()) {
      const numDrafts = decision.numDrafts[r] as number;
      if (numDrafts === 0) continue;
      if (tokenIds === null) chosen.set(sequence, this.#candidates.byModel(sequence, numDrafts));
      else chosen.set(sequence, { numDrafts, tokenIds: tokenIds.slice(0, numDrafts), draftLen: 0 });
    }
    return chosen;
  }

  /** Repeats the last decision; null where it no longer fits. */
  #repeat(sequences: readonly Sequence[], mostDrafts: number): ReadonlyMap<Sequence, Drafting> | null {
    const held = this.#held;
    if (held === null || held.numPlanned >= HELD_STEPS || this.#policy.isOverdrawn) return null;
    if (held.candidates.length !== sequences.length) return null;
    let numDrafts = 0;
    let numRows = this.#candidates.maxDraftRows;
    const chosen = new Map<Sequence, Drafting>();
    for (const [r, sequence] of sequences.entries()) {
      if (held.candidates[r]?.sequence !== sequence) return null;
      const count = held.decision.numDrafts[r] as number;
      if (count === 0) continue;
      if (count > this.#candidates.mostByModel(sequence, sequence.maxNumTokens - sequence.numTokens - 1, numRows)) return null;
      const drafting = this.#candidates.byModel(sequence, count);
      numDrafts += count;
      numRows -= drafting.draftLen;
      chosen.set(sequence, drafting);
    }
    if (numDrafts > mostDrafts) return null;
    this.#chosen = held;
    return chosen;
  }

  planned(batch: ScheduledBatch): void {
    const chosen = this.#chosen;
    if (chosen === null) return;
    this.#planned.set(batch, chosen);
    chosen.numPlanned++;
    this.#chosen = null;
  }

  committed(batch: ScheduledBatch, numAccepted: readonly (number | null)[], result: StepTimings): void {
    const choice = this.#planned.get(batch);
    this.#planned.delete(batch);
    const gap = result.startSeconds - this.#lastEnd;
    this.#lastEnd = result.endSeconds;
    if (choice === undefined) return;
    batch.forEach(({ drafting }, i) => {
      const accepted = numAccepted[i] ?? null;
      if (accepted !== null) this.#counts.add(drafting?.numDrafts ?? 0, accepted);
    });
    // A longer gap is idle time.
    const hostSeconds = gap < result.executeSeconds + IDLE_SECONDS ? Math.max(0, gap) : null;
    if (this.#usesCosts && !choice.isMeasured) this.#costs.observe(measured(batch, result, hostSeconds));
    choice.isMeasured = true;
    this.#settle(choice, outcomesOf(batch, numAccepted), result.executeSeconds);
  }

  #settle({ candidates, decision }: Choice, outcomes: ReadonlyMap<Sequence, DraftOutcome>, seconds: number): void {
    this.#policy.settle(
      decision,
      candidates.map(({ sequence }) => outcomes.get(sequence) ?? null),
      seconds,
    );
    this.#candidates.stepped();
    if (candidates.length > 0 && decision.seconds !== null) this.#counts.addSeconds(decision.seconds.passes, seconds);
  }

  ended(sequence: Sequence): void {
    this.#candidates.ended(sequence);
  }

  lost(): void {
    this.#planned.clear();
    this.#chosen = null;
    this.#held = null;
    this.#candidates.lost();
  }
}

/** A step as a cost measurement. In steps with prompts contexts count 0: many rows of a sequence share one. */
function measured(batch: ScheduledBatch, { executeSeconds, draftSeconds }: StepTimings, hostSeconds: number | null): MeasuredStep {
  const isDecode = batch.every(({ fromSlot }) => fromSlot);
  const target = { ...emptyPass };
  const draftPasses: (typeof target)[] = [];
  for (const { start, numTokens, drafting } of batch) {
    const context = isDecode ? start + 1 : 0;
    target.rows += numTokens;
    target.contextTokens += context;
    target.draftContextTokens += (numTokens - 1) * context;
    if (drafting === null || drafting.draftLen === 0) continue;
    for (let i = 0; i < Math.max(1, drafting.numDrafts); i++) {
      const pass = draftPasses[i] ?? { ...emptyPass };
      draftPasses[i] = pass;
      pass.rows += i === 0 ? drafting.draftLen : 1;
      pass.contextTokens += context;
    }
  }
  return { target, targetSeconds: executeSeconds - draftSeconds, draftPasses, draftSeconds, hostSeconds: isDecode ? hostSeconds : null };
}

/** Outcome of each sequence that decoded and is still live. */
function outcomesOf(batch: ScheduledBatch, numAccepted: readonly (number | null)[]): ReadonlyMap<Sequence, DraftOutcome> {
  const outcomes = new Map<Sequence, DraftOutcome>();
  batch.forEach(({ sequence, drafting }, i) => {
    const accepted = numAccepted[i] ?? null;
    if (accepted !== null) outcomes.set(sequence, { numDrafted: drafting?.numDrafts ?? 0, numAccepted: accepted });
  });
  return outcomes;
}
