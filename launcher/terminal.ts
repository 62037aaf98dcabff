/** Where the output of a rank ends, and what the rank is told about the terminal there. */
import { isatty } from 'node:tty';
import type { StreamName } from './log-files.ts';
import { streamsOf } from './option-parsers.ts';
import type { LaunchOptions } from './options.ts';
import type { RankPlan } from './plan.ts';

/**
 * `lines`: whole lines with a prefix, or raw bytes when there is only one rank.
 * `rank0`: raw bytes of rank 0, lines of the others, so that standard output is what rank 0 wrote.
 */
export type OutputStyle = 'lines' | 'rank0';

/** A terminal that the launcher writes to. */
export interface Terminal {
  readonly columns: number;
  /** Bits of colour: 1 = none, 4, 8 or 24. */
  readonly colorDepth: number;
}

/** The launcher's own streams; null = a file or a pipe. */
export type Terminals = Readonly<Record<StreamName, Terminal | null>>;

/** The way of one stream of one rank. */
export interface Route {
  readonly isShown: boolean;
  readonly isLogged: boolean;
  /** Bytes as they are, without a prefix. */
  readonly isRaw: boolean;
  /** The rank has the terminal itself, so that it can redraw lines and knows the width. */
  readonly isDirect: boolean;
}

export type Routes = Readonly<Record<StreamName, Route>>;

const streamNames: readonly StreamName[] = ['stdout', 'stderr'];

/** The terminals of this process. A pipe is not touched: Node would make it non-blocking. */
export function terminals(): Terminals {
  const terminalOf = (fd: number, stream: () => NodeJS.WriteStream): Terminal | null =>
    isatty(fd) ? { columns: stream().columns, colorDepth: stream().getColorDepth() } : null;
  return { stdout: terminalOf(1, () => process.stdout), stderr: terminalOf(2, () => process.stderr) };
}

/** The ways of a rank's streams. `--report` needs the end of standard error, which then passes through the launcher. */
export function routesOf(plan: RankPlan, options: LaunchOptions, numRanks: number, style: OutputStyle, to: Terminals): Routes {
  const { localRanksFilter, redirects, tee, logDir, report } = options;
  const isRaw = numRanks === 1 || (style === 'rank0' && plan.rank === 0);
  const routeOf = (name: StreamName): Route => {
    const isTeed = streamsOf(tee, plan.localRank)[name];
    const isRedirected = streamsOf(redirects, plan.localRank)[name] && !isTeed;
    const isShown = !isRedirected && (localRanksFilter?.includes(plan.localRank) ?? true);
    const isLogged = logDir !== null || isTeed || isRedirected;
    const isKept = name === 'stderr' && report !== null;
    return { isShown, isLogged, isRaw, isDirect: isRaw && isShown && !isLogged && !isKept && to[name] !== null };
  };
  return { stdout: routeOf('stdout'), stderr: routeOf('stderr') };
}

/**
 * `FORCE_COLOR` and `COLUMNS` for a rank whose output passes through the launcher and ends at a terminal, all of it: a
 * stream that also ends in a file would bring escape codes there. What the user has set is left alone.
 */
export function terminalEnv(
  plan: RankPlan,
  options: LaunchOptions,
  routes: Routes,
  to: Terminals,
  env: NodeJS.ProcessEnv,
): Record<string, string> {
  const piped = streamNames.filter((name) => !routes[name].isDirect && (routes[name].isShown || routes[name].isLogged));
  const [first] = piped.map((name) => (routes[name].isLogged ? null : to[name]));
  if (!first || piped.some((name) => routes[name].isLogged || to[name] === null)) return {};
  const prefix = piped.some((name) => !routes[name].isRaw) ? prefixOf(options, plan).length : 0;
  const hasChosen = ['NO_COLOR', 'FORCE_COLOR', 'NODE_DISABLE_COLORS'].some((name) => env[name] !== undefined);
  const level = { 4: '1', 8: '2', 24: '3' }[first.colorDepth];
  return {
    ...(hasChosen || level === undefined ? {} : { FORCE_COLOR: level }),
    ...(env['COLUMNS'] ? {} : { COLUMNS: String(Math.max(1, first.columns - prefix)) }),
  };
}

/** What each line of a rank begins with on the console. */
export function prefixOf({ logLinePrefixTemplate, roleName }: LaunchOptions, plan: RankPlan): string {
  const values: Record<string, string> = { rank: String(plan.rank), local_rank: String(plan.localRank), role_name: roleName };
  return logLinePrefixTemplate.replace(/\$\{(\w+)\}/g, (whole, name: string) => values[name] ?? whole);
}
