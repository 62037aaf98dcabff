/** The error report of a job, from what the coordinator knows at its end. */
import type { Epochs } from './epochs.ts';
import { buildReport, type ErrorReport, type ReportInput } from './error-report.ts';
import type { Nodes } from './nodes.ts';

/** What a report says of a job whatever its end. */
export interface ReportedJob {
  readonly runId: string;
  readonly command: readonly string[];
}

export function jobReport(
  { runId, command }: ReportedJob,
  { facts, restarts, notRestarted }: Epochs,
  nodes: Nodes,
  { end, exitCode }: Pick<ReportInput, 'end' | 'exitCode'>,
): ErrorReport {
  return buildReport({
    end,
    exits: facts.exits,
    exitCode,
    runId,
    command,
    placeOf: (rank) => ({ node: facts.nodeOf(rank), host: nodes.hostOf(facts.nodeOf(rank)) }),
    errorOf: (rank) => facts.errorOf(rank),
    stateOf: (rank) => facts.stateOf(rank),
    outputOf: (rank) => facts.outputOf(rank),
    restarts,
    notRestarted,
  });
}
