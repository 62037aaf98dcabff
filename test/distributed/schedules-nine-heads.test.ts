/** Random schedules on one to four ranks: nine heads divide by no number of ranks but three. */
import { testSchedules } from '../helpers/schedules.ts';

testSchedules('smollm-nine-heads-bf16', 'bfloat16', [60, 40, 20, 20], { ranksOfPart: [1, 3] });
