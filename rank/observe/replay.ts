/** Compares a replayed step with its record. Pure. */
import type { Directory } from '../../protocol/sections.ts';
import type { StepPlan } from '../../protocol/step-plan.ts';
import { packLasting, ResultSection, viewLasting } from '../../protocol/step-result.ts';

/** A packed result. */
export interface PackedResult {
  readonly directory: Directory;
  readonly bytes: Uint8Array;
}

/**
 * Tokens in each slot, tracked over a log. A plan alone gives only an upper bound where drafts were in flight.
 */
export class SlotLengths {
  readonly #lengths = new Map<number, number>();

  /** `[numSeqs]` position of each sequence's first new token; advances past the step. */
  advance(plan: StepPlan, numTokens: ArrayLike<number>): number[] {
    for (const [i, slot] of plan.admitSlots.entries()) this.#lengths.set(slot, plan.admitLens[i] as number);
    return Array.from(plan.slots, (slot, i) => {
      const numRows = (plan.cuQueryLens[i + 1] as number) - (plan.cuQueryLens[i] as number);
      const numDrafts = plan.numDrafts[i] ?? 0;
      const first = (this.#lengths.get(slot) ?? 0) + numRows - numDrafts;
      this.#lengths.set(slot, first + Math.max(0, (numTokens[i] as number) - 1));
      return first;
    });
  }
}

/** The first difference, in words; null if none. `recorded` is the reproducible part. Steps come in order, no gaps. */
export function firstDifference(plan: StepPlan, recorded: PackedResult, replayed: PackedResult, lengths: SlotLengths): string | null {
  const before = viewLasting(recorded.directory, recorded.bytes);
  const again = packLasting(replayed.directory, replayed.bytes);
  const after = viewLasting(again.directory, again.bytes);
  const get = (result: typeof before, id: number) => result.get(id) ?? new Int32Array(0);
  const hashes = [get(before, ResultSection.hashes), get(after, ResultSection.hashes)] as const;
  // The plan's hash covers native's input: a mismatch is a broken log, not another answer.
  if (hashes[0][0] !== hashes[1][0] || hashes[0][1] !== hashes[1][1]) return 'the plan is not the one that was recorded';
  const counts = [get(before, ResultSection.numTokens), get(after, ResultSection.numTokens)] as const;
  const tokens = [get(before, ResultSection.tokenIds), get(after, ResultSection.tokenIds)] as const;
  const positions = lengths.advance(plan, counts[0]);
  let next = 0;
  for (const [i, slot] of plan.slots.entries()) {
    const position = positions[i] as number;
    if (counts[0][i] !== counts[1][i])
      return `slot ${slot}, position ${position}: recorded ${counts[0][i]} tokens, replayed ${counts[1][i]}`;
    for (let j = 0; j < (counts[0][i] as number); j++, next++) {
      if (tokens[0][next] === tokens[1][next]) continue;
      return `slot ${slot}, position ${position + j}: recorded token ${tokens[0][next]}, replayed ${tokens[1][next]}`;
    }
  }
  const names = new Map<number, string>(Object.entries(ResultSection).map(([name, id]) => [id, name]));
  for (const id of new Set([...before.keys(), ...after.keys()])) {
    const [old, now] = [get(before, id), get(after, id)];
    if (old.length !== now.length) return `${names.get(id)}: recorded ${old.length} values, replayed ${now.length}`;
    // By identity: NaN equals itself, and 0 is not -0.
    const index = old.findIndex((value: number, k: number) => !Object.is(value, now[k]));
    if (index < 0) continue;
    if (id === ResultSection.hashes) return 'the logits or hidden states that were handed back';
    return `${names.get(id)}[${index}]: recorded ${old[index]}, replayed ${now[index]}`;
  }
  return null;
}
