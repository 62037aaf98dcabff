/** How the hosts' leaders meet: what each publishes and waits for, without a connection. */
import t from 'tap';
import { openMesh } from '../../../rank/gang/mesh.ts';
import type { MeshConnectOptions } from '../../../rank/native.ts';

/** What ranks publish, in one epoch. */
class Board {
  readonly #values = new Map<string, string>();
  readonly #waiting = new Map<string, ((value: string) => void)[]>();

  publish(_epoch: number, key: string, value: string): void {
    this.#values.set(key, value);
    for (const resolve of this.#waiting.get(key) ?? []) resolve(value);
  }

  published(_epoch: number, key: string): Promise<string> {
    const value = this.#values.get(key);
    if (value !== undefined) return Promise.resolve(value);
    return new Promise((resolve) => this.#waiting.set(key, [...(this.#waiting.get(key) ?? []), resolve]));
  }
}

const nodes = {
  epoch: 4,
  localAddr: '10.0.0.9',
  addresses: ['10.0.0.1', '10.0.0.2', '10.0.0.3'],
  commKey: '000102030405060708090a0b0c0d0e0f',
};
const envOf = (groupRank: number, localRank = 0) => ({ groupRank, groupWorldSize: 3, localRank, startupTimeoutMs: 5000 });

/** A leader's connections, and how they were opened and closed. */
function fakeMesh(port: number) {
  const calls: { listened: string[]; connected: MeshConnectOptions[]; closed: number } = { listened: [], connected: [], closed: 0 };
  const listen = (localAddr: string) => {
    calls.listened.push(localAddr);
    const connect = async (options: MeshConnectOptions) => {
      calls.connected.push(options);
    };
    return { port, connect, close: () => calls.closed++ };
  };
  return { calls, listen };
}

t.test('the leaders of all hosts learn the ports of each other; the ranks beside them need none', async (t) => {
  const board = new Board();
  const meshes = [0, 1, 2].map((node) => fakeMesh(4000 + node));
  const { signal } = new AbortController();
  const places = await Promise.all(meshes.map(({ listen }, node) => openMesh(envOf(node), nodes, board, listen, signal)));
  for (const [node, { calls }] of meshes.entries()) {
    t.match(places[node], { nodeRank: node, numNodes: 3, handle: { port: 4000 + node } });
    t.same(calls.listened, ['10.0.0.9']);
    const { addresses } = nodes;
    const key = Buffer.from(Array.from({ length: 16 }, (_, i) => i));
    t.same(calls.connected, [{ nodeRank: node, epoch: 4, key, addresses, ports: [4000, 4001, 4002], timeoutMs: 5000 }]);
    t.equal(calls.closed, 0);
  }
  const beside = fakeMesh(1);
  t.same(await openMesh(envOf(1, 1), nodes, board, beside.listen, signal), { nodeRank: 1, numNodes: 3, handle: null });
  t.same(beside.calls.listened, []);
});

t.test('an epoch that is given up closes its connections, waiting ones too', async (t) => {
  const [waiting, abort] = [fakeMesh(4000), new AbortController()];
  openMesh(envOf(0), nodes, new Board(), waiting.listen, abort.signal);
  abort.abort();
  t.equal(waiting.calls.closed, 1);
  const late = fakeMesh(4000);
  await t.rejects(openMesh(envOf(0), nodes, new Board(), late.listen, abort.signal), { code: 'ERR_CLOSED' });
  t.same(late.calls.listened, [], 'one that is given up already opens none');
});

t.test('a port that is none is refused', async (t) => {
  for (const port of ['', '0', '65536', '1.5', 'x', '-1']) {
    const board = new Board();
    board.publish(4, 'mesh-port-1', port);
    board.publish(4, 'mesh-port-2', '4002');
    const { signal } = new AbortController();
    await t.rejects(openMesh(envOf(0), nodes, board, fakeMesh(4000).listen, signal), { code: 'ERR_PROTOCOL', message: /port of node 1/ });
  }
});
