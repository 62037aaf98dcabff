/** Stop signals, and their default action when there is no other listener. */

const stopSignals: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGINT', 'SIGHUP'];

/**
 * Calls `decide` on every stop signal until the returned function is called. `default` = the signal's effect without
 * this listener: the user's own listeners run; without any, the signal ends the process.
 */
export function onSignals(decide: () => 'handled' | 'default'): () => void {
  const listeners = stopSignals.map((signal) => {
    const listener = () => {
      if (decide() === 'handled' || process.listenerCount(signal) > 1) return;
      process.off(signal, listener);
      process.kill(process.pid, signal);
    };
    process.on(signal, listener);
    return { signal, listener };
  });
  return () => {
    for (const { signal, listener } of listeners) process.off(signal, listener);
  };
}
