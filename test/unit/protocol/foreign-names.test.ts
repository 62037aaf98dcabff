/** Names of other tools. */
import t from 'tap';
import { camelCase, foreignAnswer, kebabCase, namesOf } from '../../../protocol/foreign-names.ts';
import { checkOptions } from '../../../rank/options.ts';
import { samplingRows } from '../../../rank/request/sampling-params.ts';

t.test('our names are those of the options', async (t) => {
  t.same(namesOf('sampling').toSorted(), Object.keys(samplingRows).toSorted());
  for (const name of namesOf('load')) t.doesNotThrow(() => checkOptions({ [name]: undefined }), name);
});

t.test('spellings', async (t) => {
  t.same(['--max-new-tokens', 'max_new_tokens', 'maxNewTokens', '-tp'].map(camelCase), [
    'maxNewTokens',
    'maxNewTokens',
    'maxNewTokens',
    'tp',
  ]);
  t.equal(kebabCase('maxNewTokens'), 'max-new-tokens');
});

t.test('answers', async (t) => {
  const answer = (name: string, ...known: string[]) => foreignAnswer(name, known, (ours) => `<${ours}>`);
  t.equal(answer('--n-predict', 'maxTokens'), 'it is <maxTokens>');
  t.equal(answer('--max-num-seqs', 'maxTokens'), 'it is the load option maxNumSeqs of LLM.load');
  t.equal(answer('maxModelLen'), 'it is the load option maxModelLen of LLM.load');
  t.equal(answer('input_len'), 'it is --prompt-len of ndsrun bench');
  t.match(answer('--host'), /no HTTP server/);
  t.equal(answer('frobnicate'), null);
  t.equal(answer('toString'), null);
});
