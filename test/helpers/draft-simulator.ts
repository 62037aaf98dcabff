/** Simulates decoding with drafts at known acceptance and costs, and finds the best plan in hindsight. */
import { AcceptanceEstimate, SharedAcceptance } from '../../rank/speculative/policy/acceptance.ts';
import { chooseDrafts } from '../../rank/speculative/policy/choose-drafts.ts';
import type { DraftDecision, DraftOutcome } from '../../rank/speculative/policy/draft-policy.ts';
import type { DraftStep } from '../../rank/speculative/policy/draft-step.ts';
import type { PassLoad } from '../../rank/speculative/policy/pass-costs.ts';
import { type PassEstimates, type StepCostEstimates, StepCosts } from '../../rank/speculative/policy/step-costs.ts';
import { SWEEP_REPEATS, sweepShapes } from '../../rank/speculative/sweep.ts';
import { randomIntegers } from './random.ts';

/** Seconds by number of rows, without contexts, which `context` adds. */
export interface TrueCosts {
  target(rows: number): number;
  draft(rows: number): number;
  readonly host: number;
  /** Seconds per context token: of newest tokens and of drafts in the target, and in the draft model. Default 0. */
  readonly context?: { readonly newest: number; readonly drafts: number; readonly draftModel: number };
}

export interface Scenario {
  readonly numSequences: number;
  readonly numSteps: number;
  readonly most: number;
  readonly source: 'draft_model' | 'text';
  readonly costs: TrueCosts;
  /** Conditional acceptance of draft `i` (from 1) of sequence `r` in a step. */
  alpha(r: number, i: number, step: number): number;
  /** Standard deviation of the log of each phase's seconds; one in fifty phases also takes 2 to 10 times as long. */
  readonly noise: number;
  readonly seed: number;
  /** Costs during the sweep; default `costs`. */
  readonly sweepCosts?: TrueCosts;
  /** Tokens of each prompt and of each output; a finished request is replaced by a new one. */
  readonly numPromptTokens?: number;
  readonly numOutputTokens?: number;
  /** Multiplier of all costs in a step. */
  slowness?(step: number): number;
}

/** A DraftPolicy, or one broken on purpose. */
export interface Decider {
  decide(step: DraftStep): DraftDecision;
  settle(decision: DraftDecision, outcomes: readonly (DraftOutcome | null)[], measuredSeconds: number): void;
}

export interface SimulatedStep {
  readonly numDrafts: readonly number[];
  /** Expected tokens at the true acceptance. */
  readonly tokens: number;
  /** True seconds, without noise. */
  readonly seconds: number;
  readonly plainSeconds: number;
  readonly numAccepted: readonly number[];
}

const noContext = { newest: 0, drafts: 0, draftModel: 0 };

/** Number of later steps planned before a step's result is known. */
const LAG = 2;

export function simulate(scenario: Scenario, newDecider: (costs: StepCosts) => Decider): SimulatedStep[] {
  const { numSequences, numSteps, most, source, alpha, costs, noise, numPromptTokens = 32, numOutputTokens = 300 } = scenario;
  const random = randomReals(scenario.seed);
  const noisy = (seconds: number) =>
    seconds * Math.exp(noise * random.normal()) * (noise > 0 && random.uniform() < 0.02 ? 2 + 8 * random.uniform() : 1);
  const learned = new StepCosts();
  const run = (truth: TrueCosts, target: PassLoad, draftPasses: readonly PassLoad[], factor: number) => {
    const { target: targetCosts, draft: draftCosts } = trueEstimates(truth);
    const draft = draftPasses.reduce((sum, pass) => sum + draftCosts.seconds(pass), 0) * factor;
    const verify = targetCosts.seconds(target) * factor;
    const [targetSeconds, draftSeconds] = [noisy(verify), noisy(draft)];
    learned.observe({ target, targetSeconds, draftPasses, draftSeconds, hostSeconds: noisy(truth.host * factor) });
    return { seconds: verify + draft + truth.host * factor, measured: targetSeconds + draftSeconds };
  };
  for (const shape of sweepShapes({ maxNumSeqs: numSequences, maxNumBatchedTokens: 4096, numSpeculativeTokens: most })) {
    const contextTokens = shape.numSequences * shape.catchUpTokens;
    const passes = source === 'text' ? 0 : shape.numDrafts;
    const draftPasses = Array.from({ length: passes }, (_, i) => ({
      rows: i === 0 ? contextTokens : shape.numSequences,
      contextTokens,
      draftContextTokens: 0,
    }));
    const target = { rows: shape.numSequences * (shape.numDrafts + 1), contextTokens, draftContextTokens: shape.numDrafts * contextTokens };
    for (let repeat = 0; repeat < SWEEP_REPEATS; repeat++)
      run(scenario.sweepCosts ?? costs, target, draftPasses, scenario.slowness?.(0) ?? 1);
  }
  const shared = new SharedAcceptance(most);
  const decider = newDecider(learned);
  const newRequest = () => ({
    acceptance: new AcceptanceEstimate(shared),
    behind: numPromptTokens + 1,
    remaining: numOutputTokens,
    context: numPromptTokens,
  });
  // The first requests end one after another, as in a server in steady state.
  const requests = Array.from({ length: numSequences }, (_, r) => ({
    ...newRequest(),
    remaining: Math.ceil((numOutputTokens * (r + 1)) / numSequences),
  }));
  const inFlight: { decision: DraftDecision; outcomes: DraftOutcome[]; measured: number }[] = [];
  const steps: SimulatedStep[] = [];
  for (let step = 0; step < numSteps; step++) {
    const candidates = requests.map(({ acceptance, behind, remaining, context }) => ({
      acceptance,
      most,
      source,
      contextTokens: context,
      catchUpTokens: behind,
      remainingTokens: remaining,
    }));
    const decision = decider.decide({ candidates, numOtherRows: 0 });
    const { numDrafts } = decision;
    const factor = scenario.slowness?.(step) ?? 1;
    const target = { rows: numSequences, contextTokens: 0, draftContextTokens: 0 };
    const draftPasses: { rows: number; contextTokens: number; draftContextTokens: number }[] = [];
    const outcomes: DraftOutcome[] = [];
    let tokens = 0;
    for (const [r, request] of requests.entries()) {
      const numDrafted = numDrafts[r] as number;
      target.rows += numDrafted;
      target.contextTokens += request.context;
      target.draftContextTokens += numDrafted * request.context;
      for (let i = 1; i <= numDrafted && source !== 'text'; i++) {
        draftPasses[i - 1] ??= { rows: 0, contextTokens: 0, draftContextTokens: 0 };
        const pass = draftPasses[i - 1] as (typeof draftPasses)[number];
        pass.rows += i === 1 ? request.behind : 1;
        pass.contextTokens += request.context;
      }
      let survival = 1;
      let numAccepted = 0;
      let isAccepted = true;
      for (let i = 1; i <= numDrafted; i++) {
        tokens += survival;
        survival *= alpha(r, i, step);
        isAccepted &&= random.uniform() < alpha(r, i, step);
        if (isAccepted) numAccepted++;
      }
      tokens += survival;
      outcomes.push({ numDrafted, numAccepted });
      request.behind = numDrafted === 0 ? request.behind + 1 : numAccepted === numDrafted ? 2 : 1;
      request.remaining -= numAccepted + 1;
      request.context += numAccepted + 1;
      if (request.remaining <= 0) requests[r] = newRequest();
    }
    const { seconds, measured } = run(costs, target, draftPasses, factor);
    shared.fade();
    const plain = { rows: numSequences, contextTokens: target.contextTokens, draftContextTokens: 0 };
    steps.push({
      numDrafts,
      tokens,
      seconds,
      plainSeconds: (trueEstimates(costs).target.seconds(plain) + costs.host) * factor,
      numAccepted: outcomes.map(({ numAccepted }) => numAccepted),
    });
    inFlight.push({ decision, outcomes, measured });
    if (inFlight.length > LAG) {
      const done = inFlight.shift() as (typeof inFlight)[number];
      decider.settle(done.decision, done.outcomes, done.measured);
    }
  }
  return steps;
}

/** True costs as `StepCostEstimates`. */
export function trueEstimates({ target, draft, host, context = noContext }: TrueCosts): StepCostEstimates {
  const passOf = (rowSeconds: (rows: number) => number, contextSeconds: number, draftContextSeconds: number): PassEstimates => ({
    rowSeconds: (rows) => (rows === 0 ? 0 : rowSeconds(rows)),
    contextSeconds,
    draftContextSeconds,
    seconds: ({ rows, contextTokens, draftContextTokens }) =>
      rowSeconds(rows) + contextSeconds * contextTokens + draftContextSeconds * draftContextTokens,
  });
  return {
    target: passOf(target, context.newest, context.drafts),
    draft: passOf(draft, context.draftModel, 0),
    hostSeconds: () => host,
  };
}

/** Decides with the true costs and the true acceptance, which is the same for all requests. */
export function knowingDecider({ costs, most, alpha }: Scenario): Decider {
  let step = 0;
  const acceptance = {
    learns: false,
    survivals: () => {
      const survivals = [1];
      for (let i = 1; i <= most; i++) survivals.push((survivals[i - 1] as number) * alpha(0, i, step));
      return survivals;
    },
    observe() {},
  };
  return {
    decide({ candidates, numOtherRows }) {
      const known = candidates.map((candidate) => ({ ...candidate, acceptance }));
      const numDrafts = chooseDrafts({ candidates: known, numOtherRows }, trueEstimates(costs));
      step++;
      return { numDrafts, candidates, seconds: null, isTrial: false };
    },
    settle() {},
  };
}

/** Tokens per second of the steps ÷ those of plain decoding. */
export function speedUp(steps: readonly SimulatedStep[]): number {
  const numSequences = steps[0]?.numDrafts.length ?? 0;
  const sum = (of: (step: SimulatedStep) => number) => steps.reduce((total, step) => total + of(step), 0);
  return sum((step) => step.tokens) / sum((step) => step.seconds) / ((numSequences * steps.length) / sum((step) => step.plainSeconds));
}

/** Sequences with the same acceptance; `survival(i)` is the probability that drafts 1 … i are all accepted. */
export interface Group {
  readonly size: number;
  survival(i: number): number;
}

/**
 * The best plan by exhaustive search over the number of drafts of each group, spread evenly within it: `[numGroups]`
 * drafts of each group in total, and the speed-up. No uneven spread is better, as survival never grows with i and a
 * full pass never costs more than two that share its rows.
 */
export function bestPlan(
  groups: readonly Group[],
  most: number,
  costs: TrueCosts,
  source: Scenario['source'],
): { totals: number[]; speedUp: number } {
  const numSequences = groups.reduce((sum, { size }) => sum + size, 0);
  const plain = numSequences / (costs.target(numSequences) + costs.host);
  let best = { totals: groups.map(() => 0), speedUp: 1 };
  const tryAll = (totals: number[]): void => {
    if (totals.length < groups.length) {
      const size = groups[totals.length]?.size ?? 0;
      for (let total = 0; total <= size * most; total++) tryAll([...totals, total]);
      return;
    }
    const passRows: number[] = [];
    let tokens = numSequences;
    for (const [g, { size, survival }] of groups.entries()) {
      for (let i = 1, left = totals[g] as number; left > 0; i++, left -= size) {
        const count = Math.min(left, size);
        tokens += count * survival(i);
        passRows[i - 1] = (passRows[i - 1] ?? 0) + count;
      }
    }
    const draft = source === 'text' ? 0 : passRows.reduce((sum, rows) => sum + costs.draft(rows), 0);
    const rows = numSequences + totals.reduce((sum, total) => sum + total, 0);
    const goodput = tokens / (costs.target(rows) + draft + costs.host) / plain;
    if (goodput > best.speedUp + 1e-12) best = { totals, speedUp: goodput };
  };
  tryAll([]);
  return best;
}

/** Seeded real numbers. */
export function randomReals(seed: number): { uniform(): number; normal(): number } {
  const below = randomIntegers(seed);
  const uniform = () => below(2 ** 31) / 2 ** 31;
  return { uniform, normal: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()) };
}

/** Costs in units of one sequence's plain step. */
export const costShapes = {
  /** Bound by memory: up to 32 rows cost nearly the same. */
  flat: {
    target: (rows: number) => 1 + 0.004 * rows + Math.max(0, rows - 32) * 0.02,
    draft: (rows: number) => 0.1 + 0.001 * rows,
    host: 0.01,
  },
  /** Bound by arithmetic: every row costs the same. */
  linear: { target: (rows: number) => 0.05 + rows, draft: (rows: number) => 0.01 + 0.03 * rows, host: 0.01 },
  /** Kernels with tiles of four rows. */
  steps: {
    target: (rows: number) => 0.6 + 0.4 * Math.ceil(rows / 4),
    draft: (rows: number) => 0.05 + 0.04 * Math.ceil(rows / 4),
    host: 0.02,
  },
  /** In between, with a draft model of two fifths of the target's cost. */
  dearDraft: { target: (rows: number) => 0.9 + 0.1 * rows, draft: (rows: number) => 0.36 + 0.008 * rows, host: 0.01 },
} as const satisfies Record<string, TrueCosts>;

/** Costs dominated by contexts. */
export const contextShapes = {
  /**
   * story-5m with story-180k on two cores, in units of 0.2 ms. Each row reads its context, which doubles the row's time
   * within 1000 tokens.
   */
  story: {
    target: (rows: number) => 0.6 + 0.35 * rows,
    draft: (rows: number) => 0.11 + 0.005 * rows,
    host: 0.1,
    context: { newest: 3.5e-4, drafts: 3.5e-4, draftModel: 2e-5 },
  },
  /** A CPU where weights take longer than arithmetic. */
  rows: { ...costShapes.flat, context: { newest: 5e-4, drafts: 5e-4, draftModel: 3e-5 } },
  /** A GPU: a context is read once per sequence, whatever its number of rows. */
  once: { ...costShapes.flat, context: { newest: 1e-4, drafts: 0, draftModel: 2e-5 } },
} as const satisfies Record<string, TrueCosts>;
