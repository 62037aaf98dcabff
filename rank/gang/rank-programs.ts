/** What a rank loads: the programs of the model and of its draft. */
import type { LoadMessage } from '../../protocol/messages.ts';
import { buildProgram, keptOn, type Model, replicatedBytes } from '../model/index.ts';
import type { DraftSpec, ProgramSpec } from '../program-spec.ts';
import type { Shard } from '../shard-cache/shard-file.ts';
import type { RankPlace } from './place.ts';

export interface RankPrograms {
  readonly program: ProgramSpec;
  readonly draft: DraftSpec | undefined;
}

/** @throws NdsError for a model that cannot be shared by so many ranks. */
export function rankPrograms(
  model: Model,
  draftModel: Model | null,
  message: LoadMessage,
  share: Pick<RankPlace, 'rank' | 'worldSize'>,
): RankPrograms {
  const { type: _, model: path, numThreads, trace, draft, draftRule, device, deterministic, ...sizes } = message;
  const { rank, worldSize } = share;
  const program = buildProgram(model, { rank, worldSize, ...sizes, quantization: keptOn(device, sizes.quantization) });
  if (draft === null || draftModel === null) return { program, draft: undefined };
  const { quantization, maxModelLen, isSharded, isGreedy } = draft;
  const draftShare = isSharded ? { rank, worldSize } : { rank: 0, worldSize: 1 };
  // A draft pass samples one row per sequence.
  const limits = { ...sizes, quantization: keptOn(device, quantization), maxModelLen, maxNumLogitRows: sizes.maxNumSeqs };
  return { program, draft: { program: buildProgram(draftModel, { ...draftShare, ...limits }), isSharded, isGreedy } };
}

/** Bytes of weights that the rank before on its host holds too, whose programs are `before`. */
export function replicatedOf({ program, draft }: RankPrograms, before: RankPrograms): number {
  const ofDraft = draft === undefined || before.draft === undefined ? 0 : replicatedBytes(draft.program, before.draft.program);
  return replicatedBytes(program, before.program) + ofDraft;
}

/** The shards that the programs are, for the cache: the model's, then the draft's. */
export function shardsOf({ program, draft }: RankPrograms, { model, draft: load }: LoadMessage, place: RankPlace): Shard[] {
  const { rank, worldSize, localRank, localWorldSize } = place;
  const own = { rank, worldSize, numOfHost: localWorldSize, isWriter: true };
  const shards = [{ ...own, folder: model, program }];
  if (draft === undefined || load === null) return shards;
  const share = draft.isSharded ? own : { rank: 0, worldSize: 1, numOfHost: 1, isWriter: localRank === 0 };
  return [...shards, { ...share, folder: load.model, program: draft.program }];
}
