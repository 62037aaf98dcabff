/** Addresses that nothing of ours listens on. */

/** Whether an address, as text or as ZeroMQ writes it, is that of all interfaces. */
export function isAllInterfaces(address: string): boolean {
  return /^(\*?|(::ffff:)?0\.0\.0\.0|[0:]+|::ffff:0+:0+)$/i.test(address);
}
