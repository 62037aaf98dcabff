/** The device options, shared by every command that loads a model. */
import type { OptionSpec } from '../../launcher/command-line.ts';
import { flag, number, text } from '../../launcher/option-parsers.ts';
import type { LLMOptions } from '../../rank/index.ts';

export const deviceSpecs = {
  device: { value: 'DEVICE', parse: text, help: 'where to compute: auto, cpu or cuda (default: auto)' },
  deterministic: { value: null, parse: flag, help: 'on cuda: tokens that depend on no batch and no number of ranks' },
  'gpu-memory-utilization': { value: 'S', parse: number, help: "on cuda: share of the device's memory to use (default: 0.9)" },
} satisfies Record<string, OptionSpec<unknown>>;

/** The load options that these stand for. */
export function deviceOf(options: {
  readonly device?: string | undefined;
  readonly deterministic?: boolean | undefined;
  readonly 'gpu-memory-utilization'?: number | undefined;
}): Pick<LLMOptions, 'device' | 'deterministic' | 'gpuMemoryUtilization'> {
  return {
    device: options.device as LLMOptions['device'],
    deterministic: options.deterministic,
    gpuMemoryUtilization: options['gpu-memory-utilization'],
  };
}
