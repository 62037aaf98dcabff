/** The draft policy on the emulated device: it knows what drafts cost there. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { runJob, type Session } from '../helpers/gang.ts';
import { emulatedBackend } from './emulated.ts';

const model = (name: string) => fileURLToPath(new URL(`../../examples/models/${name}`, import.meta.url));

t.test('a draft model that takes a small share of a step is used', async (t) => {
  const session: Session = {
    model: model('story-5m'),
    options: {
      device: 'cuda',
      maxModelLen: 256,
      maxNumSeqs: 1,
      kvCacheMemoryBytes: 2 ** 24,
      speculativeConfig: { model: model('story-180k') },
    },
    rounds: [[{ type: 'generate', prompt: 'Once upon a time', params: { temperature: 0, maxTokens: 24, ignoreEos: true } }]],
  };
  const { speculation } = await runJob(1, [session], await emulatedBackend());
  t.ok((speculation[0]?.numDraftTokens ?? 0) > 0, `${JSON.stringify(speculation[0])}`);
});
