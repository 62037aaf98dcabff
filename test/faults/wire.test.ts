/** Plans that are harmed on their way: how soon a job ends, and what it says. */
import { join } from 'node:path';
import t from 'tap';
import { root } from '../../scripts/files.mjs';
import { Cluster } from '../helpers/cluster.ts';
import { needsHosts } from '../helpers/hosts.ts';
import { fixture } from '../helpers/launcher.ts';
import { repeats } from '../helpers/scale.ts';
import { openSite, secondsSince, startAt } from '../helpers/site.ts';

const script = fixture('bad-wire.ts');
const model = join(root, 'examples', 'models', 'story-180k');
const stepTimeout = '--step-timeout=20';

/** What becomes of a plan, the exit codes, and what every console says. */
const harms: [harm: string, codes: number[], said: RegExp][] = [
  ['dropped', [70], /Expected message \d+ on the channel to rank 1 but received \d+: a gap \[ERR_PROTOCOL\]/],
  ['repeated', [70], /Expected message \d+ on the channel to rank 1 but received \d+: a repeat \[ERR_PROTOCOL\]/],
  ['cut short', [70], /Expected 'plan' as 2 frames but received 1 \[ERR_PROTOCOL\]/],
  // By chance the bytes are those of another message or plan, which only the comparison of all ranks finds.
  ['a corrupted header', [70, 78], /rank \d failed first.*\n.* \[ERR_(PROTOCOL|PLAN|MISMATCH)\]/],
  ['corrupted bytes', [70, 78], /rank \d failed first.*\n.* \[ERR_(PLAN|MISMATCH)\]/],
];

for (const [harm, codes, said] of harms) {
  t.test(`${harm}, on one node`, async (t) => {
    const site = await openSite(t);
    for (let i = repeats(10); i > 0; i--) {
      const gang = startAt(site, ['--nproc-per-node=2', stepTimeout, script, model, harm], { env: { OMP_NUM_THREADS: '1' } });
      await gang.printed(/harmed/);
      const start = performance.now();
      const { code, stderr } = await gang.ended();
      t.ok(codes.includes(Number(code)), `${code}: ${stderr}`);
      t.match(stderr, said);
      t.ok(secondsSince(start) < 5, `${secondsSince(start)} s`);
      t.same(await site.leaks(), []);
    }
  });

  t.test(`${harm}, on two nodes`, needsHosts, async (t) => {
    const cluster = await Cluster.open(t, 2);
    for (let i = repeats(10); i > 0; i--) {
      const nodes = cluster.startAll(['--nproc-per-node=1', stepTimeout, script, model, harm]);
      await nodes[0]?.printed(/harmed/);
      const start = performance.now();
      const code = Number((await nodes[0]?.ended())?.code);
      t.ok(codes.includes(code), `${code}`);
      await cluster.expectEnds(t, nodes, code, { stderr: [said], start, seconds: 10 });
    }
  });
}
