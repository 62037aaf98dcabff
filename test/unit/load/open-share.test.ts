/** Which LLMs may be open together, and that loads come one after the other. */
import t from 'tap';
import type { RankEnv } from '../../../protocol/rank-env.ts';
import { OpenShare } from '../../../rank/open-share.ts';

const env = (fields: Partial<RankEnv>) => ({ worldSize: 1, traceFile: '', recordFile: '', ...fields }) as RankEnv;

t.test('several on one rank, one on more, one while the launcher watches', async (t) => {
  const cases: Record<string, readonly [RankEnv, RegExp]> = {
    'several ranks': [env({ worldSize: 3 }), /on 3 ranks, which run the plans of one model in one order: close\(\) the one before/],
    'a trace': [env({ traceFile: '/t.json' }), /with ndsrun --trace/],
    'a plan log': [env({ recordFile: '/r' }), /with ndsrun --record/],
  };
  for (const [name, [place, message]] of Object.entries(cases)) {
    const first = OpenShare.enter(place);
    t.throws(() => OpenShare.enter(place), { code: 'ERR_USAGE', message }, name);
    first.leave();
    first.leave();
    OpenShare.enter(place).leave();
  }
  const both = [null, env({})].map((place) => OpenShare.enter(place));
  for (const share of both) share.leave();
});

t.test('one on CUDA, beside others on the CPU', async (t) => {
  const [first, second, third] = [1, 2, 3].map(() => OpenShare.enter(null)) as [OpenShare, OpenShare, OpenShare];
  first.use('cuda');
  second.use('cpu');
  t.throws(() => third.use('cuda'), { code: 'ERR_USAGE', message: /one open LLM at a time on CUDA/ });
  first.leave();
  third.use('cuda');
  second.leave();
  third.leave();
});

t.test('a load begins when those before it have ended, however they ended', async (t) => {
  const events: string[] = [];
  const shares = ['a', 'b', 'c'].map((name) => ({ name, share: OpenShare.enter(null) }));
  const loads = shares.map(({ name, share }) =>
    share.load(async () => {
      events.push(`${name} begins`);
      await null;
      events.push(`${name} ends`);
      if (name === 'a') throw new Error('a fails');
      return name;
    }),
  );
  t.match(await Promise.allSettled(loads), [{ reason: { message: 'a fails' } }, { value: 'b' }, { value: 'c' }]);
  t.same(events, ['a begins', 'a ends', 'b begins', 'b ends', 'c begins', 'c ends']);
  for (const { share } of shares) share.leave();
});
