/** Decides what each step drafts for whom. */
import type { ScheduledBatch } from '../scheduler/batch.ts';
import type { Drafter, DraftRoom } from '../scheduler/drafter.ts';
import type { StepTimings } from '../scheduler/result-reader.ts';
import type { Drafting, Sequence } from '../scheduler/sequence.ts';
import { type Candidate, Candidates, type DraftLimits } from './candidates.ts';
import type { ResolvedSpeculativeConfig } from './config.ts';
import { SpeculationCounts, type SpeculationStats } from './counts.ts';
import { type DraftDecision, type DraftOutcome, DraftPolicy } from './policy/draft-policy.ts';
import { RateGuard } from './policy/rate-guard.ts';
import { type MeasuredStep, StepCosts } from './policy/step-costs.ts';

interface Choice {
  /** Sequences that decode. */
  readonly numSequences: number;
  /** Whether it was considered to draft. */
  readonly mayDraft: boolean;
  /** What was decided of whom; null where there was nothing to decide. */
  readonly decided: { readonly candidates: readonly Candidate[]; readonly decision: DraftDecision } | null;
}

/**
 * After drafts were refused the next steps have none either: deciding costs time, and what the decision rests on moves slowly.
 * Twice as many each time in a row, from the first to the last of these.
 */
const plainSteps = { first: 4, last: 16 };
/** Steps for which a decision for the draft model holds, as long as the same sequences decode. */
const sameSteps = 4;
/** What the host may take between two steps, besides as long as a step. */
const idleSeconds = 1e-3;

const noDrafts: ReadonlyMap<Sequence, Drafting> = new Map();

export class Speculator implements Drafter {
  readonly #config: ResolvedSpeculativeConfig;
  readonly #costs = new StepCosts();
  /** Whether anything depends on what steps cost. */
  readonly #usesCosts: boolean;
  readonly #candidates: Candidates;
  readonly #policy: DraftPolicy;
  readonly #guard = new RateGuard();
  readonly #counts = new SpeculationCounts();
  #chosen: Choice | null = null;
  /** Steps since drafts were refused, and how many there shall be; 0 = decide. */
  #numPlain = 0;
  #mostPlain: number = plainSteps.first;
  /** What the last decision gave each sequence, and how many steps it has served. */
  #last: { readonly numDrafts: ReadonlyMap<Sequence, number>; numSteps: number } | null = null;
  readonly #planned = new Map<ScheduledBatch, Choice>();
  #lastEnd = 0;

  constructor(config: ResolvedSpeculativeConfig, draftLimits: DraftLimits | null) {
    this.#config = config;
    this.#usesCosts = config.adaptiveK || config.methods.length > 1;
    this.#candidates = new Candidates(config, draftLimits, this.#costs);
    this.#policy = new DraftPolicy({ costs: this.#costs, adaptive: config.adaptiveK });
  }

  /** Of all sequences so far. */
  get stats(): SpeculationStats {
    return this.#counts.snapshot;
  }

  /** Learns what a step costs that was run for nothing else. */
  learn(step: MeasuredStep): void {
    this.#costs.observe(step);
  }

  choose(sequences: readonly Sequence[], room: DraftRoom): ReadonlyMap<Sequence, Drafting | 'wait'> {
    const numSequences = sequences.length;
    const mayDraft = numSequences > 0 && (!this.#config.adaptiveK || this.#guard.mayDraft(numSequences));
    const isPlain = this.#numPlain > 0 && this.#numPlain < this.#mostPlain;
    if (isPlain) this.#numPlain++;
    this.#chosen = { numSequences, mayDraft, decided: null };
    if (isPlain || !mayDraft) return noDrafts;
    const mostDrafts = Math.min(room.numTokens, room.numLogitRows);
    return this.#repeat(sequences, mostDrafts) ?? this.#decide(sequences, room, mostDrafts);
  }

  #decide(sequences: readonly Sequence[], room: DraftRoom, mostDrafts: number): ReadonlyMap<Sequence, Drafting | 'wait'> {
    const chosen = new Map<Sequence, Drafting | 'wait'>();
    const numSequences = sequences.length;
    const candidates: Candidate[] = [];
    let numDraftRows = this.#candidates.maxDraftRows;
    for (const sequence of sequences) {
      const candidate = this.#candidates.of(sequence, numSequences, numDraftRows);
      if (candidate === 'wait') chosen.set(sequence, 'wait');
      else candidates.push(candidate);
      if (candidate !== 'wait' && candidate.source === 'draft_model' && candidate.most > 0) numDraftRows -= candidate.catchUpTokens;
    }
    const { adaptiveK } = this.#config;
    const numOtherRows = adaptiveK ? Math.min(room.numTokens, room.numPromptTokens()) : 0;
    const [leastGain, mustDraft] = [this.#guard.leastGain(numSequences), this.#guard.mustDraft(numSequences)];
    const decision = this.#policy.decide({ candidates, numOtherRows, mostDrafts, leastGain, mustDraft }, Math.max(1, this.#numPlain));
    this.#chosen = { numSequences, mayDraft: true, decided: { candidates, decision } };
    for (const [r, { sequence, tokenIds }] of candidates.entries()) {
      const numDrafts = decision.numDrafts[r] as number;
      if (numDrafts === 0) continue;
      if (tokenIds === null) chosen.set(sequence, this.#candidates.byModel(sequence, numDrafts));
      else chosen.set(sequence, { numDrafts, tokenIds: tokenIds.slice(0, numDrafts), draftLen: 0 });
    }
    if (adaptiveK) this.#remember(candidates, decision);
    return chosen;
  }

  /** For how long the steps that follow need no decision of their own. */
  #remember(candidates: readonly Candidate[], { numDrafts, probe }: DraftDecision): void {
    const isRefused = candidates.some(({ most }) => most > 0) && numDrafts.every((count) => count === 0);
    const isAgain = isRefused && this.#numPlain > 0;
    this.#mostPlain = isAgain ? Math.min(plainSteps.last, 2 * this.#mostPlain) : plainSteps.first;
    this.#numPlain = isRefused ? 1 : 0;
    this.#last = null;
    if (isRefused || probe !== null || candidates.some(({ source }) => source === 'text')) return;
    this.#last = { numDrafts: new Map(candidates.map(({ sequence }, r) => [sequence, numDrafts[r] as number])), numSteps: 1 };
  }

  /** What was decided last once more, where it still fits, else null: deciding takes time, and little has changed. */
  #repeat(sequences: readonly Sequence[], mostDrafts: number): ReadonlyMap<Sequence, Drafting> | null {
    const last = this.#last;
    if (last === null || last.numSteps >= sameSteps || last.numDrafts.size !== sequences.length) return null;
    let numDrafts = 0;
    let numRows = this.#candidates.maxDraftRows;
    const chosen = new Map<Sequence, Drafting>();
    for (const sequence of sequences) {
      const count = last.numDrafts.get(sequence);
      const most = sequence.maxNumTokens - sequence.numTokens - 1;
      if (count === undefined || count > this.#candidates.mostByModel(sequence, most, numRows)) return null;
      if (count === 0) continue;
      const drafting = this.#candidates.byModel(sequence, count);
      numDrafts += count;
      numRows -= drafting.draftLen;
      chosen.set(sequence, drafting);
    }
    if (numDrafts > mostDrafts) return null;
    last.numSteps++;
    return chosen;
  }

  planned(batch: ScheduledBatch): void {
    const chosen = this.#chosen;
    if (chosen === null) return;
    this.#planned.set(batch, chosen);
    if (chosen.numSequences > 0 && this.#config.adaptiveK) this.#guard.planned(chosen.numSequences);
    this.#chosen = null;
  }

  committed(batch: ScheduledBatch, numAccepted: readonly (number | null)[], result: StepTimings): void {
    const choice = this.#planned.get(batch);
    this.#planned.delete(batch);
    const gap = result.startSeconds - this.#lastEnd;
    this.#lastEnd = result.endSeconds;
    if (choice === undefined) return;
    let numTokens = 0;
    batch.forEach(({ drafting }, i) => {
      const accepted = numAccepted[i] ?? null;
      if (accepted === null) return;
      this.#counts.add(drafting?.numDrafts ?? 0, accepted);
      numTokens += 1 + accepted;
    });
    // A longer gap is a time without work.
    const hostSeconds = gap < result.executeSeconds + idleSeconds ? Math.max(0, gap) : null;
    // Beside prompts a step's seconds say nothing, nor do they after a time without work.
    if (this.#config.adaptiveK && hostSeconds !== null && batch.every(({ fromSlot }) => fromSlot)) {
      const plainSeconds = choice.decided?.decision.plainSeconds ?? null;
      this.#guard.settle(choice.numSequences, choice.mayDraft, numTokens, result.executeSeconds + hostSeconds, plainSeconds);
    }
    if (choice.decided === null) return this.#observe(batch, numAccepted);
    if (this.#usesCosts) this.#measure(batch, result, hostSeconds);
    this.#settle(choice.decided, outcomesOf(batch, numAccepted), result.executeSeconds);
  }

  /** A step that did once more what had been decided, or nothing. */
  #observe(batch: ScheduledBatch, numAccepted: readonly (number | null)[]): void {
    batch.forEach(({ sequence, drafting }, i) => {
      const accepted = numAccepted[i] ?? null;
      if (drafting === null || accepted === null) return;
      this.#candidates.observe(sequence, { numDrafted: drafting.numDrafts, numAccepted: accepted });
    });
  }

  #settle({ candidates, decision }: NonNullable<Choice['decided']>, outcomes: ReadonlyMap<Sequence, DraftOutcome>, seconds: number): void {
    this.#policy.settle(
      decision,
      candidates.map(({ sequence }) => outcomes.get(sequence) ?? null),
      seconds,
    );
    if (candidates.length > 0 && this.#config.adaptiveK) this.#counts.addSeconds(decision.passSeconds, seconds);
  }

  ended(sequence: Sequence): void {
    this.#candidates.ended(sequence);
  }

  /** `hostSeconds`: since the step before it; null after a time without work. */
  #measure(batch: ScheduledBatch, { executeSeconds, draftSeconds }: StepTimings, hostSeconds: number | null): void {
    const draftRows: number[] = [];
    let targetRows = 0;
    for (const { numTokens, drafting } of batch) {
      targetRows += numTokens;
      if (drafting === null || drafting.draftLen === 0) continue;
      for (let i = 0; i < Math.max(1, drafting.numDrafts); i++) draftRows[i] = (draftRows[i] ?? 0) + (i === 0 ? drafting.draftLen : 1);
    }
    this.#costs.observe({ targetRows, targetSeconds: executeSeconds - draftSeconds, draftRows, draftSeconds, hostSeconds });
  }
}

/** Of those sequences that decoded and are still there. */
function outcomesOf(batch: ScheduledBatch, numAccepted: readonly (number | null)[]): ReadonlyMap<Sequence, DraftOutcome> {
  const outcomes = new Map<Sequence, DraftOutcome>();
  batch.forEach(({ sequence, drafting }, i) => {
    const accepted = numAccepted[i] ?? null;
    if (accepted !== null) outcomes.set(sequence, { numDrafted: drafting?.numDrafts ?? 0, numAccepted: accepted });
  });
  return outcomes;
}
