/** The nodes of a job as its coordinator reaches them: who can be heard, and one question to all of them at a time. */
import type { AgentCommand } from './agent-messages.ts';
import type { Clock } from './clock.ts';

/** How long a node may take to say what its ranks have recorded. */
const inspectMs = 1000;

export type SendToNode = (node: number, command: AgentCommand) => void;

export class Nodes {
  readonly #addresses: readonly string[];
  readonly #send: SendToNode;
  readonly #clock: Clock;
  readonly #lost = new Set<number>();
  readonly #hosts = new Map<number, string>();
  /** Nodes whose answer to `inspect` is awaited, and what follows. */
  #inspection: { readonly awaited: Set<number>; readonly onDone: () => void; readonly cancel: () => void } | null = null;

  /** @param addresses - `[nnodes]` */
  constructor(addresses: readonly string[], send: SendToNode, clock: Clock) {
    this.#addresses = addresses;
    this.#send = send;
    this.#clock = clock;
  }

  /** Nodes that cannot be heard any more. */
  get lost(): ReadonlySet<number> {
    return this.#lost;
  }

  lose(node: number): void {
    this.#lost.add(node);
  }

  addressOf(node: number): string {
    return this.#addresses[node] as string;
  }

  /** Notes the name of a node's host. */
  named(node: number, host: string): void {
    this.#hosts.set(node, host);
  }

  /** Empty before the node has told it. */
  hostOf(node: number): string {
    return this.#hosts.get(node) ?? '';
  }

  /** @param except - a node that is not told */
  broadcast(command: AgentCommand, except: number | null = null): void {
    for (const node of this.#heard()) if (node !== except) this.#send(node, command);
  }

  /** Asks every node what its ranks have recorded; a question before this one is dropped. */
  inspect(epoch: number, onDone: () => void): void {
    this.cancelInspection();
    const cancel = this.#clock.after(inspectMs, () => this.#inspected());
    this.#inspection = { awaited: new Set(this.#heard()), onDone, cancel };
    this.broadcast({ type: 'inspect', epoch });
  }

  get isInspecting(): boolean {
    return this.#inspection !== null;
  }

  /** A node has answered, or never will. */
  answered(node: number): void {
    this.#inspection?.awaited.delete(node);
    if (this.#inspection?.awaited.size === 0) this.#inspected();
  }

  cancelInspection(): void {
    this.#inspection?.cancel();
    this.#inspection = null;
  }

  #inspected(): void {
    const inspection = this.#inspection;
    this.cancelInspection();
    inspection?.onDone();
  }

  #heard(): number[] {
    return [...this.#addresses.keys()].filter((node) => !this.#lost.has(node));
  }
}
