/** Decides what each step drafts for whom, from whichever source offers most. */
import type { StepResult } from '../../protocol/step-result.ts';
import type { Drafting, ScheduledBatch } from '../scheduled-batch.ts';
import type { Sequence } from '../sequence.ts';
import { SharedAcceptance } from './acceptance.ts';
import type { ResolvedSpeculativeConfig } from './config.ts';
import { type DraftDecision, type DraftOutcome, DraftPolicy, type PolicyCandidate } from './draft-policy.ts';
import type { Drafter, DraftRoom } from './drafter.ts';
import { SequenceSources } from './offers.ts';
import { RateGuard } from './rate-guard.ts';
import { SpeculationCounts, type SpeculationStats } from './speculation-counts.ts';
import { type MeasuredStep, StepCosts } from './step-costs.ts';
import { SuffixCache } from './suffix.ts';

/** What the draft model can do. */
export interface DraftLimits {
  /** Tokens of a sequence. */
  readonly maxModelLen: number;
  /** Tokens that it takes in at a time. */
  readonly maxNumBatchedTokens: number;
}

/** A sequence of a step, with what could be drafted for it. */
interface Candidate extends PolicyCandidate {
  readonly sequence: Sequence;
  /** Of its text; null for the draft model's. */
  readonly tokenIds: readonly number[] | null;
}

interface Choice {
  /** Sequences that decode. */
  readonly numSequences: number;
  /** Whether it was considered to draft. */
  readonly mayDraft: boolean;
  /** What was decided of whom; null where there was nothing to decide. */
  readonly decided: { readonly candidates: readonly Candidate[]; readonly decision: DraftDecision } | null;
}

/** Drafts of its text that must be expected to stay for a sequence to wait until its tokens are known: a step of its own that it misses. */
const worthWaiting = 0.5;
/**
 * After drafts were refused the next steps have none either: deciding costs time, and what the decision rests on moves slowly.
 * Twice as many each time in a row, from the first to the last of these.
 */
const plainSteps = { first: 4, last: 16 };
/** Steps for which a decision for the draft model holds, as long as the same sequences decode. */
const sameSteps = 4;
/** What the host may take between two steps, besides as long as a step. */
const idleSeconds = 1e-3;
/** A sequence that only decodes. */
const nothing = { survival: (i: number) => (i === 0 ? 1 : 0), evidence: () => 0, observe() {} };

export class Speculator implements Drafter {
  readonly #config: ResolvedSpeculativeConfig;
  /** Null without a draft model. */
  readonly #draftLimits: DraftLimits | null;
  readonly #modelAcceptance: SharedAcceptance | null;
  readonly #suffixCache: SuffixCache;
  readonly #sources = new Map<Sequence, SequenceSources>();
  readonly #costs = new StepCosts();
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
    this.#draftLimits = draftLimits;
    this.#modelAcceptance = draftLimits && new SharedAcceptance(config.numSpeculativeTokens);
    this.#suffixCache = new SuffixCache(config);
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

  choose(sequences: readonly Sequence[], room: DraftRoom): Map<Sequence, Drafting | 'wait'> {
    const chosen = new Map<Sequence, Drafting | 'wait'>();
    const numSequences = sequences.length;
    const mayDraft = numSequences > 0 && (!this.#config.adaptiveK || this.#guard.mayDraft(numSequences));
    const isPlain = this.#numPlain > 0 && this.#numPlain < this.#mostPlain;
    if (isPlain) this.#numPlain++;
    this.#chosen = { numSequences, mayDraft, decided: null };
    if (isPlain || !mayDraft) return chosen;
    const mostDrafts = Math.min(room.numTokens, room.numLogitRows);
    if (this.#repeat(sequences, mostDrafts, chosen)) return chosen;
    const candidates: Candidate[] = [];
    let numDraftRows = this.#draftLimits?.maxNumBatchedTokens ?? 0;
    for (const sequence of sequences) {
      const candidate = this.#candidate(sequence, sequences.length, numDraftRows);
      if (candidate === 'wait') chosen.set(sequence, 'wait');
      else candidates.push(candidate);
      if (candidate !== 'wait' && candidate.source === 'draft_model' && candidate.most > 0) numDraftRows -= candidate.catchUpTokens;
    }
    const numOtherRows = Math.min(room.numTokens, room.numPromptTokens());
    const decision = this.#policy.decide({ candidates, numOtherRows, mostDrafts }, Math.max(1, this.#numPlain));
    this.#chosen = { numSequences, mayDraft, decided: { candidates, decision } };
    const isRefused = this.#config.adaptiveK && candidates.some(({ most }) => most > 0) && decision.numDrafts.every((count) => count === 0);
    const isAgain = isRefused && this.#numPlain > 0;
    this.#mostPlain = isAgain ? Math.min(plainSteps.last, 2 * this.#mostPlain) : plainSteps.first;
    this.#numPlain = isRefused ? 1 : 0;
    const mostRows = this.#draftLimits?.maxNumBatchedTokens ?? 0;
    for (const [r, candidate] of candidates.entries()) {
      const drafting = toDrafting(candidate, decision.numDrafts[r] as number, mostRows);
      if (drafting !== null) chosen.set(candidate.sequence, drafting);
    }
    const isOfModel = this.#config.adaptiveK && candidates.every(({ source }) => source === 'draft_model');
    const numDrafts = new Map(candidates.map(({ sequence }, r) => [sequence, decision.numDrafts[r] as number]));
    this.#last = isOfModel && decision.probe === null && !isRefused ? { numDrafts, numSteps: 1 } : null;
    return chosen;
  }

  /** Does once more what was decided last, where it still fits: deciding takes time, and little has changed. */
  #repeat(sequences: readonly Sequence[], mostDrafts: number, chosen: Map<Sequence, Drafting | 'wait'>): boolean {
    const last = this.#last;
    if (last === null || last.numSteps >= sameSteps || last.numDrafts.size !== sequences.length) return false;
    let numDrafts = 0;
    let numRows = this.#draftLimits?.maxNumBatchedTokens ?? 0;
    const drafts: [Sequence, Drafting][] = [];
    for (const sequence of sequences) {
      const count = last.numDrafts.get(sequence);
      if (count === undefined || count > this.#mostByModel(sequence, sequence.maxNumTokens - sequence.numTokens - 1, numRows)) return false;
      if (count === 0) continue;
      const { numUnseenTokens } = sequence.draft;
      numDrafts += count;
      numRows -= numUnseenTokens;
      drafts.push([sequence, { numDrafts: count, tokenIds: null, draftLen: numUnseenTokens }]);
    }
    if (numDrafts > mostDrafts || numRows < 0) return false;
    last.numSteps++;
    for (const [sequence, drafting] of drafts) chosen.set(sequence, drafting);
    return true;
  }

  planned(batch: ScheduledBatch): void {
    const chosen = this.#chosen;
    if (chosen === null) return;
    this.#planned.set(batch, chosen);
    if (chosen.numSequences > 0) this.#guard.planned(chosen.numSequences);
    this.#chosen = null;
  }

  committed(batch: ScheduledBatch, numAccepted: readonly (number | null)[], result: StepResult): void {
    const choice = this.#planned.get(batch);
    this.#planned.delete(batch);
    const gap = result.startSeconds - this.#lastEnd;
    this.#lastEnd = result.endSeconds;
    if (choice === undefined) return;
    const outcomes = new Map<Sequence, DraftOutcome>();
    let numTokens = 0;
    for (const [i, { sequence, drafting }] of batch.entries()) {
      const accepted = numAccepted[i] ?? null;
      if (accepted === null) continue;
      const outcome = { numDrafted: drafting?.numDrafts ?? 0, numAccepted: accepted };
      outcomes.set(sequence, outcome);
      this.#counts.add(outcome.numDrafted, accepted);
      numTokens += 1 + accepted;
    }
    // A longer gap is a time without work.
    const hostSeconds = gap < result.executeSeconds + idleSeconds ? Math.max(0, gap) : null;
    // Beside prompts a step's seconds say nothing, nor do they after a time without work.
    if (hostSeconds !== null && batch.every(({ fromSlot }) => fromSlot)) {
      const plainSeconds = choice.decided?.decision.plainSeconds ?? null;
      this.#guard.settle(choice.numSequences, choice.mayDraft, numTokens, result.executeSeconds + hostSeconds, plainSeconds);
    }
    if (choice.decided === null) return this.#observe(batch, outcomes);
    this.#measure(batch, result, hostSeconds);
    this.#settle(choice.decided, outcomes, result.executeSeconds);
  }

  /** A step that did once more what had been decided. */
  #observe(batch: ScheduledBatch, outcomes: ReadonlyMap<Sequence, DraftOutcome>): void {
    for (const { sequence, drafting } of batch) {
      const outcome = drafting === null ? undefined : outcomes.get(sequence);
      if (outcome !== undefined) this.#sources.get(sequence)?.model?.observe(outcome.numDrafted, outcome.numAccepted);
    }
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
    if (!this.#sources.delete(sequence)) return;
    if (this.#config.methods.includes('suffix')) this.#suffixCache.add(sequence.tokenIds.slice(sequence.numPromptTokens));
  }

  /** `hostSeconds`: since the step before it; null after a time without work. */
  #measure(batch: ScheduledBatch, { executeSeconds, draftSeconds }: StepResult, hostSeconds: number | null): void {
    const draftRows: number[] = [];
    let targetRows = 0;
    for (const { numTokens, drafting } of batch) {
      targetRows += numTokens;
      if (drafting === null || drafting.draftLen === 0) continue;
      for (let i = 0; i < Math.max(1, drafting.numDrafts); i++) draftRows[i] = (draftRows[i] ?? 0) + (i === 0 ? drafting.draftLen : 1);
    }
    const seconds = { targetSeconds: executeSeconds - draftSeconds, draftSeconds };
    this.#costs.observe({ targetRows, draftRows, ...seconds, ...(hostSeconds !== null && { hostSeconds }) });
  }

  /**
   * The better of what the text and the draft model offer a sequence.
   * @param numSequences - that decode in the step
   * @param numDraftRows - tokens that the draft model can still take in
   */
  #candidate(sequence: Sequence, numSequences: number, numDraftRows: number): Candidate | 'wait' {
    const { numSpeculativeTokens } = this.#config;
    const remainingTokens = Math.max(1, sequence.maxNumTokens - sequence.numTokens);
    const common = { sequence, remainingTokens, catchUpTokens: Math.max(1, sequence.draft.numUnseenTokens) };
    const most = Math.min(numSpeculativeTokens, remainingTokens - 1);
    const sources = this.#sourcesOf(sequence);
    const byModel = this.#mostByModel(sequence, most, numDraftRows);
    const { offer, acceptance } = sources.offer(sequence, Math.max(0, most));
    const ofModel = sources.model === null ? 0 : this.#worthOfModel(sources.model, byModel, numSequences);
    if (offer.tokenIds.length > 0 && acceptance.expectedLength >= ofModel) {
      if (sequence.numPendingTokens === 0) {
        return { ...common, acceptance, most: offer.tokenIds.length, source: 'text', tokenIds: offer.tokenIds };
      }
      if (acceptance.expectedLength >= worthWaiting) return 'wait';
    }
    if (sources.model === null) return { ...common, acceptance: nothing, most: 0, source: 'text', tokenIds: null };
    return { ...common, acceptance: sources.model, most: byModel, source: 'draft_model', tokenIds: null };
  }

  /** Drafts that the draft model can give: the last is not taken in, so it may lie just past its context. */
  #mostByModel(sequence: Sequence, most: number, numRows: number): number {
    if (this.#draftLimits === null) return 0;
    const { maxModelLen, maxNumBatchedTokens } = this.#draftLimits;
    // One that lies further behind than any pass reaches takes a whole one to itself.
    if (Math.min(sequence.draft.numUnseenTokens, maxNumBatchedTokens) > numRows) return 0;
    return Math.max(0, Math.min(most, maxModelLen - sequence.numTokens + 1));
  }

  /** Tokens that the draft model brings a step, less what its passes cost in tokens. */
  #worthOfModel(acceptance: { survival(i: number): number }, most: number, numSequences: number): number {
    const { hostSeconds } = this.#costs;
    const price = this.#costs.draftSeconds(numSequences) / (hostSeconds + this.#costs.targetSeconds(numSequences));
    let best = 0;
    let worth = 0;
    for (let i = 1; i <= most; i++) {
      worth += acceptance.survival(i) - price;
      best = Math.max(best, worth);
    }
    return best;
  }

  #sourcesOf(sequence: Sequence): SequenceSources {
    let sources = this.#sources.get(sequence);
    if (sources === undefined) {
      sources = new SequenceSources(this.#config, this.#modelAcceptance, this.#suffixCache);
      this.#sources.set(sequence, sources);
    }
    return sources;
  }
}

/** A decision as the plan has it. A draft model that is too far behind for one pass does nothing but catch up. */
function toDrafting({ sequence, tokenIds }: Candidate, numDrafts: number, mostRows: number): Drafting | null {
  if (numDrafts === 0) return null;
  if (tokenIds !== null) return { numDrafts, tokenIds: tokenIds.slice(0, numDrafts), draftLen: 0 };
  const { numUnseenTokens } = sequence.draft;
  if (numUnseenTokens > mostRows) return { numDrafts: 0, tokenIds: null, draftLen: mostRows };
  return { numDrafts, tokenIds: null, draftLen: numUnseenTokens };
}
