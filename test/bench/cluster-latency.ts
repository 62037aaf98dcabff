/**
 * What a token costs on two hosts whose network is 0.2, 1 or 5 ms long, one way, beside one host: `node --import tsx
 * test/bench/cluster-latency.ts [MODEL [TOKENS]]`. Needs namespaces, and `/dev/net/tun` for the delays.
 *
 * The wait is that of all collectives of a step: those of embedding, logits and the hashes of plans are some more than
 * the all-reduces that it is divided by.
 */
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { root } from '../../scripts/files.mjs';
import { byOptions, Cluster, type Way } from '../helpers/cluster.ts';
import { noHosts } from '../helpers/hosts.ts';
import type { Decode } from './cluster-rank.ts';

const [model = join(root, 'examples', 'models', 'story-5m'), ...rest] = process.argv.slice(2);
const script = fileURLToPath(new URL('cluster-rank.ts', import.meta.url));
const { num_hidden_layers: numLayers } = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8')) as { num_hidden_layers: number };
/** One after attention and one after the MLP of each layer. */
const numAllReduces = 2 * numLayers;

/** Hosts, ranks on each, delay in milliseconds (null = the kernel's switch). */
const layouts: readonly (readonly [title: string, numHosts: number, ranks: number, delayMs: number | null])[] = [
  ['1 host × 1 rank', 1, 1, null],
  ['1 host × 2 ranks', 1, 2, null],
  ['2 hosts × 1, no delay', 2, 1, null],
  ['2 hosts × 1, switch, 0 ms', 2, 1, 0],
  ['2 hosts × 1, 0.2 ms', 2, 1, 0.2],
  ['2 hosts × 1, 1 ms', 2, 1, 1],
  ['2 hosts × 1, 5 ms', 2, 1, 5],
  ['2 hosts × 2, no delay', 2, 2, null],
  ['2 hosts × 2, 1 ms', 2, 2, 1],
];

async function measure(numHosts: number, ranks: number, delayMs: number | null): Promise<readonly Decode[]> {
  const closes: (() => unknown)[] = [];
  const cluster = await Cluster.open({ teardown: (close) => closes.push(close) }, numHosts, delayMs);
  try {
    const out = join(cluster.hosts.get(0).tmp, 'out.json');
    const way: Way = numHosts === 1 ? () => ({}) : byOptions;
    const nodes = cluster.startAll([`--nproc-per-node=${ranks}`, script, out, model, ...rest], { way });
    for (const node of nodes) {
      const { code, stdout, stderr } = await node.ended();
      if (code !== 0) throw new Error(`${stdout}${stderr}`);
    }
    return JSON.parse(readFileSync(cluster.hosts.get(0).fromHere(out), 'utf8'));
  } finally {
    for (const close of closes) await close();
  }
}

if (noHosts !== null) throw new Error(noHosts);
console.log(`${cpus()[0]?.model}, ${cpus().length} cores; ${model}; ${numAllReduces} all-reduces a step; one thread a rank`);
console.log('                            batch   tokens/s   ms a step   ms waited   µs an all-reduce');
for (const [title, numHosts, ranks, delayMs] of layouts) {
  try {
    for (const { batchSize, tokensPerSecond, secondsPerStep, waitSecondsPerStep } of await measure(numHosts, ranks, delayMs)) {
      const cells = [
        title.padEnd(28),
        String(batchSize).padStart(5),
        tokensPerSecond.toFixed(0).padStart(11),
        (secondsPerStep * 1000).toFixed(3).padStart(12),
        (waitSecondsPerStep * 1000).toFixed(3).padStart(12),
        ((waitSecondsPerStep * 1e6) / numAllReduces).toFixed(1).padStart(19),
      ];
      console.log(cells.join(''));
    }
  } catch (error) {
    console.log(`${title.padEnd(28)} ${(error as Error).message.trim().split('\n').at(-1)}`);
  }
}
