/** Random schedules on one to four ranks: nine heads are divisible by one and three ranks only. */
import { testSchedules } from '../helpers/schedules.ts';

testSchedules('smollm-nine-heads-bf16', 'bfloat16', [60, 40, 20, 20], { ranksOfPart: [3] });
