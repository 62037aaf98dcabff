/** What ranks do, as launchers read it. */
import type { RankState } from '../../launcher/rank-state.ts';

/** A rank that has ended step 4 and has nothing to do. */
export const idle: RankState = {
  rank: 0,
  phase: 'idle',
  step: 4,
  failedStep: null,
  operator: null,
  layer: null,
  isDraft: false,
  waitsIn: null,
  waitsFor: null,
  isStopped: false,
  progress: 0,
};
