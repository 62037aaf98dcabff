/** Random schedules on one to four ranks with a sliding window, past which tokens are hidden. */
import { testSchedules } from '../helpers/schedules.ts';

testSchedules('mistral-sliding-bf16', 'float32', [40, 20, 10, 10], { ranksOfPart: [2] });
