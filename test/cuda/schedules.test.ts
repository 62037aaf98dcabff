/** Random schedules on the emulated device, with drafts and without: every request gives what it gives alone, to the bit. */
import t from 'tap';
import { isAll } from '../helpers/scale.ts';
import { testSchedules } from '../helpers/schedules.ts';
import { emulatedBackend } from './emulated.ts';

const env = await emulatedBackend();
const device = { device: 'cuda', deterministic: true } as const;

// Minutes of emulation.
if (isAll) testSchedules('smollm-nine-heads-bf16', 'bfloat16', [6, 6], { device, env, poolSize: 60, leastDrafts: 10 });
else t.test('schedules on the emulated device', { skip: 'set NDS_TEST_FULL=all' }, () => {});
