/** A hint at a mistyped name. */
import { nearest } from '../../protocol/nearest.ts';

/** ` (did you mean NAME?)` where a candidate is near, else nothing. */
export function near(name: string, candidates: readonly string[], prefix = ''): string {
  const likely = nearest(name, candidates);
  return likely === null ? '' : ` (did you mean ${prefix}${likely}?)`;
}
