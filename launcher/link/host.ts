/** Node 0's side of the meeting: it listens, compares the nodes that come, and welcomes all of them at once. */
import { randomBytes } from 'node:crypto';
import { NdsError, toNdsError } from '../../protocol/errors.ts';
import { newRunId } from '../resources.ts';
import { listenAddress, localAddress, ownAddresses } from './addresses.ts';
import type { LinkCall } from './call.ts';
import { helloOf, keyOf, masterOf, resolveMaster, resolveOwn } from './call.ts';
import type { Channel } from './channel.ts';
import { commonIsa, type Hello, nameOf, readHello, type Welcome } from './hello.ts';
import { type Guests, Listener } from './listener.ts';
import { Meeting } from './meeting.ts';
import { NodeLink } from './node-link.ts';

/** How long nodes that come after a failure are told of it. */
const lingerMs = 1500;

/**
 * Opens node 0's port and waits for all nodes.
 *
 * @throws NdsError `ERR_USAGE` where it cannot listen, `ERR_MISMATCH` when nodes disagree, `ERR_PEER_LOST` when one does
 * not come within `--rdzv-timeout`; the reason of an aborted signal.
 */
export async function hostLink(call: LinkCall): Promise<NodeLink> {
  const { options } = call;
  const { host, port } = masterOf(options);
  const key = keyOf(options);
  const deadline = performance.now() + options.rdzvTimeoutMs;
  const address =
    options.localAddr === null
      ? listenAddress(host, await resolveMaster(call, deadline), ownAddresses())
      : localAddress(options.localAddr, await resolveOwn(options.localAddr), ownAddresses());
  const hosting = new Hosting(call, { ...helloOf(call, address), nodeRank: 0 });
  try {
    hosting.listens(await Listener.open(address, port, key, hosting));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new NdsError('ERR_USAGE', `Expected a free port for node 0 at ${address}, port ${port}, but received ${code ?? message}`, {
      cause: error,
    });
  }
  return hosting.met(deadline);
}

class Hosting implements Guests {
  readonly #call: LinkCall;
  readonly #self: Hello;
  readonly #meeting: Meeting<Channel>;
  readonly #met: Promise<NodeLink>;
  #listener: Listener | null = null;
  #settle: { resolve: (link: NodeLink) => void; reject: (error: unknown) => void } | null = null;
  /** Why the job cannot be; null while it can. */
  #failure: NdsError | null = null;
  #numTold = 0;
  #linger: NodeJS.Timeout | null = null;
  /** Channels on which a refusal is on its way. */
  readonly #closing: Promise<void>[] = [];

  constructor(call: LinkCall, self: Hello) {
    this.#call = call;
    this.#self = self;
    this.#meeting = new Meeting(self, call.options.nnodes);
    this.#met = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
  }

  listens(listener: Listener): void {
    this.#listener = listener;
    const { options } = this.#call;
    this.notice(`node 0 listens at ${this.#self.address}, port ${options.masterPort}, for ${options.nnodes - 1} more`);
  }

  async met(deadline: number): Promise<NodeLink> {
    const { options, signal } = this.#call;
    const seconds = options.rdzvTimeoutMs / 1000;
    const expire = (): void =>
      this.#fail(
        new NdsError(
          'ERR_PEER_LOST',
          `Expected ${options.nnodes} nodes within ${seconds} s (--rdzv-timeout) but ${this.#meeting.missing} did not come`,
        ),
      );
    const timer = setTimeout(expire, deadline - performance.now());
    const abort = (): void => {
      const stopped = new NdsError('ERR_PEER_LOST', 'node 0 was stopped before all nodes had met');
      for (const channel of this.#meeting.guests) this.#refuse(channel, stopped);
      this.#end(signal.reason);
    };
    signal.addEventListener('abort', abort);
    if (signal.aborted) abort();
    try {
      return await this.#met;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
    }
  }

  notice(line: string): void {
    this.#call.notice(line);
  }

  onGreeting(channel: Channel, body: unknown): void {
    if (this.#failure !== null) return this.#refuse(channel, this.#failure);
    let hello: Hello;
    try {
      hello = readHello(body, this.#self.version);
    } catch (error) {
      const problem = toNdsError(error);
      if (problem.code === 'ERR_MISMATCH' && this.#settle !== null) return this.#fail(problem, channel);
      return this.#turnAway(channel, problem);
    }
    const verdict = this.#meeting.join(channel, hello);
    if (typeof verdict !== 'string')
      return 'failed' in verdict ? this.#fail(verdict.failed, channel) : this.#turnAway(channel, verdict.refused);
    channel.startBeats(this.#call.options.nodeTimeoutMs);
    channel.watch((reason) => this.#leave(channel, hello, reason));
    channel.send('waits');
    if (verdict === 'complete') this.#welcomeAll();
  }

  #leave(channel: Channel, hello: Hello, reason: string): void {
    this.#meeting.leave(channel);
    this.notice(`${nameOf(hello)} has left before all nodes had met: ${reason}`);
  }

  #welcomeAll(): void {
    const { seats } = this.#meeting;
    const shared: Omit<Welcome, 'nodeRank'> = {
      runId: this.#self.runId ?? newRunId(),
      isa: commonIsa(seats.map(({ hello }) => hello)) ?? null,
      secret: randomBytes(32).toString('hex'),
      nodes: seats.map(({ hello: { host, address } }) => ({ host, address })),
    };
    const channels = new Map<number, Channel>();
    for (const [nodeRank, { key: channel }] of seats.entries()) {
      if (channel === null) continue;
      channel.watch(null);
      channel.send('welcome', { ...shared, nodeRank });
      channels.set(nodeRank, channel);
    }
    this.#settle?.resolve(new NodeLink({ ...shared, nodeRank: 0 }, channels, () => this.#listener?.close()));
    this.#settle = null;
  }

  #turnAway(channel: Channel, error: NdsError): void {
    this.notice(`refused a node at ${channel.remoteAddress}: ${error.message}`);
    this.#refuse(channel, error);
  }

  #refuse(channel: Channel, { code, message }: NdsError): void {
    channel.send('refused', { code, message });
    this.#closing.push(channel.close());
    this.#numTold++;
    if (this.#failure !== null && this.#numTold >= this.#call.options.nnodes - 1) this.#end(this.#failure);
  }

  /** All nodes are told, those of the next moments too. */
  #fail(error: NdsError, offender?: Channel): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    this.#numTold = 0;
    const { guests } = this.#meeting;
    this.#linger = setTimeout(() => this.#end(error), lingerMs);
    for (const channel of offender === undefined ? guests : [...guests, offender]) this.#refuse(channel, error);
  }

  /** Ends the meeting without a link, once all that were told could read it. */
  #end(reason: unknown): void {
    if (this.#settle === null) return;
    const { reject } = this.#settle;
    this.#settle = null;
    if (this.#linger !== null) clearTimeout(this.#linger);
    this.#listener?.close();
    void Promise.all(this.#closing).then(() => reject(reason));
  }
}
