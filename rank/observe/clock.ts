/** The one clock of all processes of a host: that of native code's step timings. */

/** Seconds since some moment that is the same for every process of this host. */
export function monotonicSeconds(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds + nanoseconds / 1e9;
}
