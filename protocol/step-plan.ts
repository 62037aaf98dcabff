/** The plan of one step, executed by every rank: flat typed arrays over one buffer. */
import { type AdmitLists, listLayout, packLists, viewLists } from './admit-lists.ts';
import { NdsError } from './errors.ts';
import { type Directory, type Layout, packSections, type Section, type SectionClass, viewSections } from './sections.ts';

/** What to do with the logits of a row. */
export const LogitRowKind = { sample: 0, return: 1, promptLogprobs: 2 } as const;

/** Section ids, as in `native/core/plan/plan_view.cc`. */
export const PlanSection = {
  slots: 1,
  tokenIds: 2,
  cuQueryLens: 3,
  contextLens: 4,
  logitRows: 5,
  logitRowKinds: 6,
  admitSlots: 7,
  admitLens: 8,
  admitFloats: 9,
  admitInts: 10,
  admitSeeds: 11,
  logitRowTargets: 13,
  blockCopies: 12,
  numDrafts: 14,
  draftLens: 15,
  blockTables: 16,
  cuBlocks: 17,
  draftBlockTables: 18,
  draftCuBlocks: 19,
  hiddenRows: 20,
} as const;

/** Sampling parameters in `admitFloats`, in that order, with their neutral values. Mirrored by `kSlotFloats` of slots.h. */
export const slotFloats = {
  temperature: 0,
  topP: 1,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
} as const;
export type SlotFloats = { readonly [Name in keyof typeof slotFloats]: number };
const slotFloatNames = Object.keys(slotFloats) as readonly (keyof SlotFloats)[];

/** The same parameters of an object that has others too. */
export function pickSlotFloats(params: SlotFloats): SlotFloats {
  return Object.fromEntries(slotFloatNames.map((name) => [name, params[name]])) as unknown as SlotFloats;
}

/** Values per admitted slot in `admitFloats` and `admitInts`. */
export const numAdmitFloats = slotFloatNames.length;
export const numAdmitInts = 7;

/** In `tokenIds`: the newest token of the slot, known to native before JavaScript. */
export const newestToken = -1;
/** In `tokenIds`: `firstDraft - i` is the sequence's draft i, proposed by the draft model in this step. */
export const firstDraft = -2;

/** The draft model's part of a step. Its KV cache has its own block pool. */
export interface DraftPlan {
  /** `[numSeqs]` max unseen tokens that the draft model reads; 0 = it skips the sequence. */
  readonly lens: Int32Array;
  /** Ragged: physical block, in the draft's pool, of each sequence's logical blocks. */
  readonly blockTables: Int32Array;
  /** `[numSeqs + 1]` prefix sum of block counts. */
  readonly cuBlocks: Int32Array;
}

/** One forward pass. Scheduler, socket and kernels see these same bytes. */
export interface StepPlan {
  /** Counts the plans of one load from 0; a gap is fatal. */
  readonly step: number;
  /** `[numSeqs]` native state of each sequence of this step. */
  readonly slots: Int32Array;
  /** `[numTokens]` token to embed, `newestToken`, or `firstDraft - i`. */
  readonly tokenIds: Int32Array;
  /** `[numSeqs + 1]` prefix sum of new tokens; a decode adds 1, a chunk of prefill n, a verification of K drafts K + 1. */
  readonly cuQueryLens: Int32Array;
  /**
   * `[numSeqs]` cached + new tokens; an upper bound while acceptance of earlier drafts is in flight. Native uses the
   * slot's own length.
   */
  readonly contextLens: Int32Array;
  /** `[numSeqs]` number of drafts, the last tokens of each sequence; empty without any. */
  readonly numDrafts: Int32Array;
  /** The draft model's part, run first; null without one. */
  readonly draft: DraftPlan | null;
  /** `[n, 2]` source and destination block of each copy-on-write, run in order before the first operator. */
  readonly blockCopies: Int32Array;
  /** Ragged: physical block of each sequence's logical blocks. */
  readonly blockTables: Int32Array;
  /** `[numSeqs + 1]` prefix sum of block counts. */
  readonly cuBlocks: Int32Array;
  /** `[numLogitRows]` rows of `tokenIds` that go through the LM head, ascending. */
  readonly logitRows: Int32Array;
  /** `[numLogitRows]` `LogitRowKind` of each. A `sample` row is its sequence's last, or precedes a draft. */
  readonly logitRowKinds: Int32Array;
  /** `[numLogitRows]` target token of each `promptLogprobs` row, -1 for other rows; empty without such rows. */
  readonly logitRowTargets: Int32Array;
  /** `[numHiddenRows]` rows of `tokenIds` whose hidden states after the final norm are returned, ascending. */
  readonly hiddenRows: Int32Array;
  /** `[numAdmitted]` slots whose state this plan loads first: at admission, also after preemption. */
  readonly admitSlots: Int32Array;
  /** `[numAdmitted]` tokens whose KV is already in the slot's blocks. */
  readonly admitLens: Int32Array;
  /** `[numAdmitted, numAdmitFloats]`; see `slotFloats`. */
  readonly admitFloats: Float32Array;
  /**
   * `[numAdmitted, numAdmitInts]` topK (0 = all), sample index, numPromptTokens, minTokens, numLogprobs and numPromptLogprobs (-1 = none),
   * and whether the draft model may be told to propose (1 or 0): then all tokens so far are in `admitLists.history`.
   */
  readonly admitInts: Int32Array;
  /** `[numAdmitted, 2]` low and high word of the seed. */
  readonly admitSeeds: Uint32Array;
  readonly admitLists: AdmitLists;
}

const layout: Layout = new Map<number, SectionClass>([
  [PlanSection.slots, Int32Array],
  [PlanSection.tokenIds, Int32Array],
  [PlanSection.cuQueryLens, Int32Array],
  [PlanSection.contextLens, Int32Array],
  [PlanSection.logitRows, Int32Array],
  [PlanSection.logitRowKinds, Int32Array],
  [PlanSection.logitRowTargets, Int32Array],
  [PlanSection.admitSlots, Int32Array],
  [PlanSection.admitLens, Int32Array],
  [PlanSection.admitFloats, Float32Array],
  [PlanSection.admitInts, Int32Array],
  [PlanSection.admitSeeds, Uint32Array],
  [PlanSection.blockCopies, Int32Array],
  [PlanSection.numDrafts, Int32Array],
  [PlanSection.draftLens, Int32Array],
  [PlanSection.blockTables, Int32Array],
  [PlanSection.cuBlocks, Int32Array],
  [PlanSection.draftBlockTables, Int32Array],
  [PlanSection.draftCuBlocks, Int32Array],
  [PlanSection.hiddenRows, Int32Array],
  ...listLayout,
]);

/** Packs a plan into one buffer and its directory, for native and, framed, for every other rank. */
export function packPlan(plan: StepPlan): { directory: Directory; bytes: Uint8Array<ArrayBuffer> } {
  const sections: [number, Section][] = [
    [PlanSection.slots, plan.slots],
    [PlanSection.tokenIds, plan.tokenIds],
    [PlanSection.cuQueryLens, plan.cuQueryLens],
    [PlanSection.contextLens, plan.contextLens],
    [PlanSection.logitRows, plan.logitRows],
    [PlanSection.logitRowKinds, plan.logitRowKinds],
  ];
  if (plan.logitRowTargets.length > 0) sections.push([PlanSection.logitRowTargets, plan.logitRowTargets]);
  if (plan.hiddenRows.length > 0) sections.push([PlanSection.hiddenRows, plan.hiddenRows]);
  if (plan.admitSlots.length > 0) sections.push(...packAdmissions(plan));
  if (plan.blockCopies.length > 0) sections.push([PlanSection.blockCopies, plan.blockCopies]);
  if (plan.numDrafts.length > 0) sections.push([PlanSection.numDrafts, plan.numDrafts]);
  sections.push([PlanSection.blockTables, plan.blockTables], [PlanSection.cuBlocks, plan.cuBlocks]);
  if (plan.draft !== null) sections.push(...packDraft(plan.draft));
  return packSections(sections);
}

function packAdmissions(plan: StepPlan): [number, Section][] {
  return [
    [PlanSection.admitSlots, plan.admitSlots],
    [PlanSection.admitLens, plan.admitLens],
    [PlanSection.admitFloats, plan.admitFloats],
    [PlanSection.admitInts, plan.admitInts],
    [PlanSection.admitSeeds, plan.admitSeeds],
    ...packLists(plan.admitLists),
  ];
}

function packDraft({ lens, blockTables, cuBlocks }: DraftPlan): [number, Section][] {
  return [
    [PlanSection.draftLens, lens],
    [PlanSection.draftBlockTables, blockTables],
    [PlanSection.draftCuBlocks, cuBlocks],
  ];
}

/**
 * Zero-copy views of a plan.
 * @throws NdsError `ERR_PROTOCOL` when a section is unknown, missing, repeated or outside the buffer.
 */
export function viewPlan(step: number, directory: Directory, bytes: Uint8Array): StepPlan {
  const views = viewSections(directory, bytes, layout);
  const required = <T>(id: number): T => {
    const view = views.get(id);
    if (view === undefined) throw new NdsError('ERR_PROTOCOL', `Expected a plan with section ${id} but it is missing`);
    return view as T;
  };
  const optional = (id: number) => (views.get(id) ?? new Int32Array(0)) as Int32Array;
  const numAdmitSections = [7, 8, 9, 10, 11].filter((id) => views.has(id)).length;
  if (numAdmitSections !== 0 && numAdmitSections !== 5) {
    throw new NdsError('ERR_PROTOCOL', `Expected all five admission sections or none but received ${numAdmitSections}`);
  }
  return {
    step,
    slots: required(PlanSection.slots),
    tokenIds: required(PlanSection.tokenIds),
    cuQueryLens: required(PlanSection.cuQueryLens),
    contextLens: required(PlanSection.contextLens),
    numDrafts: optional(PlanSection.numDrafts),
    draft: views.has(PlanSection.draftLens)
      ? {
          lens: required(PlanSection.draftLens),
          blockTables: required(PlanSection.draftBlockTables),
          cuBlocks: required(PlanSection.draftCuBlocks),
        }
      : null,
    blockCopies: optional(PlanSection.blockCopies),
    blockTables: required(PlanSection.blockTables),
    cuBlocks: required(PlanSection.cuBlocks),
    logitRows: required(PlanSection.logitRows),
    logitRowKinds: required(PlanSection.logitRowKinds),
    logitRowTargets: optional(PlanSection.logitRowTargets),
    hiddenRows: optional(PlanSection.hiddenRows),
    admitSlots: optional(PlanSection.admitSlots),
    admitLens: optional(PlanSection.admitLens),
    admitFloats: (views.get(PlanSection.admitFloats) ?? new Float32Array(0)) as Float32Array,
    admitInts: optional(PlanSection.admitInts),
    admitSeeds: (views.get(PlanSection.admitSeeds) ?? new Uint32Array(0)) as Uint32Array,
    admitLists: viewLists(views),
  };
}
