/** Whether a load fits what every host or device has free, before a byte of it is packed. Pure arithmetic. */
import { NdsError, type NdsErrorCode } from '../../protocol/errors.ts';

/** What one rank needs to run at all, in bytes. */
export interface RankNeeds {
  /** Weights as they are kept; those read in place from their files take none. */
  readonly weights: number;
  /** Buffers of the largest step. */
  readonly step: number;
  /** One KV block of each group. */
  readonly kv: number;
}

/** What the ranks of one host or device can have together. */
export interface Budget {
  /** Name of the host or device. */
  readonly place: string;
  readonly ranks: readonly number[];
  readonly bytes: number;
  /** Where the bytes come from: follows their number in an error. */
  readonly origin: string;
}

/** The same model, loaded in another way. */
export interface Alternative {
  readonly what: string;
  /** `[worldSize]` */
  readonly needs: readonly RankNeeds[];
}

/**
 * @param needs - `[worldSize]`
 * @param alternatives - computed only for the error, which names those that would fit everywhere
 * @throws NdsError with `code`, naming the fullest place, what each part of the load needs there and what would fit.
 */
export function checkLoadMemory(
  budgets: readonly Budget[],
  needs: readonly RankNeeds[],
  alternatives: () => readonly Alternative[],
  code: NdsErrorCode,
): void {
  const missing = (budget: Budget) => total(budget, needs) - budget.bytes;
  const fullest = budgets.reduce((most, budget) => (missing(budget) > missing(most) ? budget : most));
  if (missing(fullest) <= 0) return;
  const { place, ranks, bytes, origin } = fullest;
  const fitting = alternatives().filter((other) => budgets.every((budget) => total(budget, other.needs) <= budget.bytes));
  const of = ranks.length === 1 ? `rank ${ranks[0]}` : `its ${ranks.length} ranks`;
  const fits = [...fitting.map(({ what }) => what), 'a machine with that much'].join(', or ');
  throw new NdsError(
    code,
    `Expected ${gib(total(fullest, needs))} of memory on ${place} for ${of} (${parts(fullest, needs)}) but received ${gib(bytes)}, ` +
      `${origin}; what would fit: ${fits}`,
  );
}

function total(budget: Budget, needs: readonly RankNeeds[]): number {
  return sumOf(budget, needs, ({ weights, step, kv }) => weights + step + kv);
}

function parts(budget: Budget, needs: readonly RankNeeds[]): string {
  const part = (name: keyof RankNeeds) => gib(sumOf(budget, needs, (rank) => rank[name]));
  return `weights ${part('weights')}, buffers of a step ${part('step')}, one KV block ${part('kv')}`;
}

function sumOf({ ranks }: Budget, needs: readonly RankNeeds[], amount: (needs: RankNeeds) => number): number {
  return ranks.reduce((sum, rank) => sum + amount(needs[rank] as RankNeeds), 0);
}

/** Bytes in GiB: three digits, no exponent. */
export function gib(bytes: number): string {
  const value = bytes / 2 ** 30;
  if (value >= 100) return `${Math.round(value)} GiB`;
  return `${value >= 0.001 ? Number(value.toPrecision(3)) : Number(value.toFixed(6))} GiB`;
}
