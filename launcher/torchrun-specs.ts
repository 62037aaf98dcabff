/** torchrun's options that are not ours: some mean nothing here and are noted, others are refused with what to do. */
import { NdsError } from '../protocol/errors.ts';
import type { OptionSpec } from './command-line.ts';
import { text } from './option-parsers.ts';

const noted = { value: 'VALUE', parse: text, hidden: true } as const;

/** Options without an effect, which are accepted with a note. The help is why. */
export const notedSpecs = {
  'start-method': { ...noted, help: 'a rank is a process of its own' },
  'monitor-interval': { ...noted, help: "a rank's end is an event, which nobody polls for" },
  'event-log-handler': { ...noted, help: '--report has the events' },
  'signals-to-handle': { ...noted, help: 'SIGTERM, SIGINT, SIGHUP and SIGUSR2 are forwarded' },
  'numa-binding': { ...noted, help: 'no rank is bound to a NUMA node' },
  'use-env': { ...noted, value: null, parse: () => 'true', help: 'LOCAL_RANK is in the environment' },
} satisfies Record<string, OptionSpec<string>>;

/** Options whose effect would be missed. */
export const refusedSpecs = {
  module: { value: null, short: '-m', ...refused('the path of a script, or a model as the operand of ndsrun generate') },
  'run-path': { value: null, ...refused('the path of a script, which each rank runs in a process of its own') },
  'rdzv-conf': { value: 'CONF', ...refused('--rdzv-timeout, --startup-timeout or --shutdown-timeout') },
  'duplicate-stdout-filters': { value: 'TEXT', ...refused('--tee 1 with --log-dir, whose files have every line') },
  'duplicate-stderr-filters': { value: 'TEXT', ...refused('--tee 2 with --log-dir, whose files have every line') },
  'logs-specs': { value: 'NAME', ...refused('--log-dir, --redirects and --tee') },
} satisfies Record<string, OptionSpec<never>>;

function refused(instead: string): Omit<OptionSpec<never>, 'value' | 'short'> {
  const parse = (_: string, where: string): never => {
    throw new NdsError('ERR_USAGE', `Expected ${instead} but received ${where}, which is torchrun's`);
  };
  return { hidden: true, help: '', parse };
}

/** One line for the noted options that were given. */
export function noteOf(values: { readonly [Name in keyof typeof notedSpecs]?: string | undefined }): string[] {
  const given = Object.entries(notedSpecs).filter(([name]) => values[name as keyof typeof notedSpecs] !== undefined);
  return given.length === 0 ? [] : [`without effect: ${given.map(([name, { help }]) => `--${name} (${help})`).join(', ')}`];
}
