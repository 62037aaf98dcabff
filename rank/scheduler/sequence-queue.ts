/** Queues of sequences in the order in which they are served: by priority, then by arrival. */
import type { Sequence } from './sequence.ts';

/** Puts a sequence where it belongs. */
export function enqueue(queue: Sequence[], sequence: Sequence): void {
  const after = queue.findLastIndex((other) => comesBefore(other, sequence));
  queue.splice(after + 1, 0, sequence);
}

/** Takes a sequence out, if it is there. */
export function remove(queue: Sequence[], sequence: Sequence): void {
  const index = queue.indexOf(sequence);
  if (index >= 0) queue.splice(index, 1);
}

function comesBefore(a: Sequence, b: Sequence): boolean {
  const byPriority = a.request.priority - b.request.priority;
  return byPriority < 0 || (byPriority === 0 && a.arrival < b.arrival);
}
