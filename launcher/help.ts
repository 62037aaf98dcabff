/** The help of a command: examples, usage, its own options; those of the launcher by reference. */
import type { Command, Option } from 'commander';
import { type CommandShape, commandFor, type OptionSpecs } from './command-line.ts';
import { launchSpecs } from './option-specs.ts';

/** On wider terminals and without one, too. */
const helpWidth = 80;
/** A help text is wrapped where this many columns are left beside the longest option. */
const minWidthToWrap = 30;
const launcherHeading = 'Options of the launcher:';
/** The launcher's options that the help of every command lists. */
const listed = ['nproc-per-node'];

/** The help text, at most 80 columns wide. */
export function helpFor<S extends OptionSpecs>(shape: CommandShape<S>): string {
  const command = commandFor(shape, () => {});
  const launcherNames = Object.keys(shape.specs).filter((name) => isLaunchOption(name, shape.specs));
  const isLaunch = launcherNames.length === Object.keys(shape.specs).length;
  const isShown = ({ hidden, long }: Option): boolean => {
    const name = long?.slice(2) ?? '';
    return !hidden && (isLaunch || !launcherNames.includes(name) || listed.includes(name));
  };
  const visibleOptions = ({ options }: Command): Option[] => options.filter(isShown);
  command.configureHelp({ helpWidth, minWidthToWrap, visibleOptions, visibleArguments: () => [] });
  for (const option of command.options) if (!isLaunch && listed.includes(option.long?.slice(2) ?? '')) option.helpGroup(launcherHeading);
  const examples = shape.examples.map((line) => `  ${line}`).join('\n');
  const footer = isLaunch || launcherNames.length === 0 ? '' : `  ${launcherNote(launcherNames)}\n`;
  return `Example${shape.examples.length > 1 ? 's' : ''}:\n${examples}\n\n${command.helpInformation()}${footer}`;
}

function isLaunchOption(name: string, specs: OptionSpecs): boolean {
  return Object.hasOwn(launchSpecs, name) && (launchSpecs as OptionSpecs)[name] === specs[name];
}

/** Which of the launcher's options a command takes. */
function launcherNote(taken: readonly string[]): string {
  const others = Object.keys(launchSpecs).filter((name) => !taken.includes(name));
  const but = others.length === 0 ? '' : `, but not ${others.map((name) => `--${name}`).join(' and ')}`;
  return `The others${but}: ndsrun help run`;
}
