/** Slot state loaded before a step: the `admit…` arrays of `StepPlan`. */
import { type AdmitLists, toRagged } from '../../protocol/admit-lists.ts';
import { numAdmitFloats, numAdmitInts, pickSlotFloats, type StepPlan } from '../../protocol/step-plan.ts';
import type { ScheduledBatch, ScheduledSequence } from './batch.ts';
import { greedyParams, type SlotParams } from './request.ts';
import type { Sequence } from './sequence.ts';

type Admissions = Pick<StepPlan, 'admitSlots' | 'admitLens' | 'admitFloats' | 'admitInts' | 'admitSeeds' | 'admitLists'>;

const noAdmissions = admissionsOf([], false);

/** The admission arrays of a batch. An admitted sequence, fresh or preempted, has only its prefix hit cached. */
export function buildAdmissions(batch: ScheduledBatch, hasDraftModel: boolean): Admissions {
  return batch.some(({ admits }) => admits)
    ? admissionsOf(
        batch.filter(({ admits }) => admits),
        hasDraftModel,
      )
    : noAdmissions;
}

function admissionsOf(admitted: readonly ScheduledSequence[], hasDraftModel: boolean): Admissions {
  const admitFloats = new Float32Array(admitted.length * numAdmitFloats);
  const admitInts = new Int32Array(admitted.length * numAdmitInts);
  const admitSeeds = new Uint32Array(admitted.length * 2);
  admitted.forEach(({ sequence }, i) => {
    const p = paramsOf(sequence);
    const rows = [p.numLogprobs ?? -1, p.numPromptLogprobs ?? -1];
    const ints = [
      p.topK,
      sequence.index,
      sequence.numPromptTokens,
      p.minTokens,
      ...rows,
      Number(hasDraftModel && sequence.request.type === 'generate'),
    ];
    admitFloats.set(Object.values(pickSlotFloats(p)), i * numAdmitFloats);
    admitInts.set(ints, i * numAdmitInts);
    admitSeeds.set([Number(p.seed & 0xffffffffn), Number(p.seed >> 32n)], i * 2);
  });
  return {
    admitSlots: Int32Array.from(admitted, ({ sequence }) => sequence.slot),
    admitLens: Int32Array.from(admitted, ({ start }) => start),
    admitFloats,
    admitInts,
    admitSeeds,
    admitLists: buildLists(admitted, hasDraftModel),
  };
}

/** A sequence's sampling parameters; greedy and unfiltered for one that never samples. */
export function paramsOf({ request }: Sequence): SlotParams {
  return request.type === 'generate' ? request.params : greedyParams;
}

/** Tokens masked until `minTokens` are generated. */
function heldBack({ request }: Sequence): readonly number[] {
  if (request.type !== 'generate' || request.params.minTokens === 0) return [];
  return [...request.eosTokenIds, ...request.stopTokenIds];
}

/** Whether sampling reads the token history. */
function looksBack({ presencePenalty, frequencyPenalty, repetitionPenalty, badWords }: SlotParams): boolean {
  return presencePenalty !== 0 || frequencyPenalty !== 0 || repetitionPenalty !== 1 || badWords.some((word) => word.length > 1);
}

function buildLists(admitted: readonly ScheduledSequence[], hasDraftModel: boolean): AdmitLists {
  const params = admitted.map(({ sequence }) => paramsOf(sequence));
  const words = params.flatMap(({ badWords }) => badWords);
  const counts = params.map(({ badWords }) => badWords.length);
  return {
    history: toRagged(
      admitted.map(({ sequence }, i) => {
        const mayDraft = hasDraftModel && sequence.request.type === 'generate';
        return mayDraft || looksBack(params[i] as SlotParams) ? sequence.tokenIds : [];
      }),
    ),
    bias: toRagged(params.map(({ logitBias }) => logitBias.map(([id]) => id))),
    biasValues: Float32Array.from(params.flatMap(({ logitBias }) => logitBias.map(([, bias]) => bias))),
    allowed: toRagged(params.map(({ allowedTokenIds }) => allowedTokenIds ?? [])),
    stops: toRagged(admitted.map(({ sequence }) => heldBack(sequence))),
    badWords: toRagged(words),
    cuBadWords: words.length === 0 ? new Int32Array(0) : prefixSums(counts),
  };
}

function prefixSums(counts: readonly number[]): Int32Array {
  const sums = new Int32Array(counts.length + 1);
  counts.forEach((count, i) => {
    sums[i + 1] = (sums[i] as number) + count;
  });
  return sums;
}
