/** What a filter is. */
import type { Budget } from '../budget.ts';
import type { Value } from '../values.ts';

/** `args` are in the places of the parameters, with the default where none was given. */
export type FilterRun = (value: Value, args: readonly Value[], budget: Budget) => Value;

export interface Filter {
  /** Names of parameters after the value, in order. */
  readonly parameters: readonly string[];
  /** Defaults of the last parameters; the first ones have none. */
  readonly defaults: readonly Value[];
  readonly run: FilterRun;
}

/** @param parameters - with their defaults, as in `reverse=` for one without and `{ reverse: false }` */
export function filter(run: FilterRun, needed: readonly string[] = [], defaults: Readonly<Record<string, Value>> = {}): Filter {
  return { parameters: [...needed, ...Object.keys(defaults)], defaults: Object.values(defaults), run };
}
