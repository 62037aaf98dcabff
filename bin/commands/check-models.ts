/** A model of a command line, checked where the check saves a build. */
import { existsSync } from 'node:fs';
import { addonFiles } from '../../rank/native.ts';

/**
 * Reads the configuration and the tensor headers of a model folder if the native core is yet to be built, which takes a
 * minute. Else the first rank does that at once.
 *
 * @throws NdsError as `readModel`.
 */
export async function checkBeforeBuild(folder: string): Promise<void> {
  if (existsSync(addonFiles().addon)) return;
  const { readModel } = await import('../../rank/model/index.ts');
  readModel(folder);
}
