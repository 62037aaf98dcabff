/** `ndsrun bench` as a comparison calls it, and the records that it prints. */
import type { Case } from '../../../bin/bench/cases.ts';
import type { BenchModel, BenchRecord, BenchRun, LimitShare } from '../../../bin/bench/record.ts';
import { NdsError } from '../../../protocol/errors.ts';
import { camelCase } from '../../../protocol/foreign-names.ts';

/** One case in one run. */
export interface OwnMeasured extends Case {
  readonly name: string;
  /** Median of the run's rounds. */
  readonly tokensPerSecond: number;
  /** Bandwidth of a decode, arithmetic of a prefill; `probe` is the median beside those rounds. */
  readonly limit: Pick<LimitShare, 'kind' | 'unit' | 'perToken'> & { readonly probe: number };
  readonly model: BenchModel;
  readonly run: BenchRun;
}

/** The records of `ndsrun bench … --json`. @throws NdsError `ERR_SYSTEM` for a record that lacks what is compared. */
export function parseOwn(stdout: string): OwnMeasured[] {
  const { records } = camelKeys(JSON.parse(stdout)) as { readonly records: readonly BenchRecord[] };
  return records.map(({ name, value, limits, model, run, details }) => {
    const phase = details['phase'] as Case['phase'];
    const limit = limits.find(({ kind }) => kind === (phase === 'prefill' ? 'arithmetic' : 'bandwidth'));
    if (limit === undefined || model === null)
      throw new NdsError('ERR_SYSTEM', `Expected a share of a limit for ${name} but received none`);
    return {
      name,
      phase,
      numTokens: details['numTokens'] as number,
      depth: details['depth'] as number,
      batchSize: details['batchSize'] as number,
      tokensPerSecond: value.median,
      limit: { kind: limit.kind, unit: limit.unit, perToken: limit.perToken, probe: limit.probe.median },
      model,
      run,
    };
  });
}

/** JSON of ours has snake_case keys. */
function camelKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(camelKeys);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [camelCase(key), camelKeys(inner)]));
}
