import { test } from 'tap';
import { publicJson } from '../../../protocol/public-json.ts';

test('keys are written in snake case, at every depth, and nothing else changes', (t) => {
  const value = { tokenIds: [1], outputs: [{ finishReason: 'maxTokens', x: null }], env: { OMP_NUM_THREADS: '2', NODE: '' }, 'a-bC': 1 };
  t.equal(
    publicJson(value),
    '{"token_ids":[1],"outputs":[{"finish_reason":"maxTokens","x":null}],"env":{"OMP_NUM_THREADS":"2","NODE":""},"a-bC":1}',
  );
  t.equal(publicJson({ maxTokens: 1 }, 2), '{\n  "max_tokens": 1\n}');
  t.equal(publicJson('tokenIds'), '"tokenIds"');
  t.end();
});
