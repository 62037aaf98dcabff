/** Stop strings in streamed text against a search of the whole text. */
import { test } from 'tap';
import { StopStrings } from '../../../rank/text/stop-strings.ts';
import { randomIntegers } from '../../helpers/random.ts';

/** Feeds pieces until a stop string is found. */
function run(stops: string[], pieces: string[], includeStop = false): { deltas: string[]; stop: string | null } {
  const matcher = new StopStrings(stops, includeStop);
  const deltas: string[] = [];
  for (const piece of pieces) {
    const { text, stop } = matcher.push(piece);
    deltas.push(text);
    if (stop !== null) return { deltas, stop };
  }
  deltas.push(matcher.finish());
  return { deltas, stop: null };
}

/** The definition: the stop string that ends first; of those that end at the same place, the longest. */
function search(stops: string[], text: string): { text: string; stop: string | null } {
  for (let end = 1; end <= text.length; end++) {
    const ending = stops.filter((stop) => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length);
    if (ending[0] !== undefined) return { text: text.slice(0, end - ending[0].length), stop: ending[0] };
  }
  return { text, stop: null };
}

test('a stop string across pieces is held back and cut off', (t) => {
  t.same(run(['END'], ['go', 'od E', 'N', 'D more']), { deltas: ['go', 'od ', '', ''], stop: 'END' });
  t.same(run(['END'], ['good E', 'NE', 'RGY']), { deltas: ['good ', 'EN', 'ERGY', ''], stop: null });
  t.same(run(['END'], ['good EN']), { deltas: ['good ', 'EN'], stop: null });
  t.same(run([], ['a', 'b']), { deltas: ['a', 'b', ''], stop: null });
  t.end();
});

test('of several, the first to be completed wins, then the longest', (t) => {
  t.same(run(['abcd', 'bc'], ['xab', 'cd']), { deltas: ['x', 'a'], stop: 'bc' });
  t.same(run(['c', 'abc', 'bc'], ['xa', 'bcd']), { deltas: ['x', ''], stop: 'abc' });
  t.same(run(['\n\n', '.'], ['One', '\n', 'two.\n', '\n']), { deltas: ['One', '', '\ntwo'], stop: '.' });
  t.end();
});

test('after a stop string nothing more comes out', (t) => {
  const matcher = new StopStrings(['x']);
  t.same(matcher.push('axb'), { text: 'a', stop: 'x' });
  t.same(matcher.push('c'), { text: '', stop: 'x' });
  t.equal(matcher.finish(), '');
  t.end();
});

test('repetitive texts in random pieces: as a search of the whole text', (t) => {
  const pick = randomIntegers(3);
  const alphabet = ['a', 'b', '🙂', '🙃'];
  const word = (longest: number): string => Array.from({ length: 1 + pick(longest) }, () => alphabet[pick(4)]).join('');
  for (let round = 0; round < 2000; round++) {
    const stops = Array.from({ length: 1 + pick(3) }, () => word(5));
    const pieces = Array.from({ length: 1 + pick(12) }, () => word(3));
    const { deltas, stop } = run(stops, pieces);
    const expected = search(stops, pieces.join(''));
    const context = JSON.stringify({ stops, pieces });
    if (deltas.join('') !== expected.text || stop !== expected.stop) t.fail(context);
    if (deltas.some((delta) => /\p{Surrogate}/u.test(delta))) t.fail(`cut a character: ${context}`);
    const included = run(stops, pieces, true);
    if (included.deltas.join('') !== expected.text + (expected.stop ?? '') || included.stop !== stop) t.fail(`included: ${context}`);
  }
  t.end();
});

test('no more is held back than may be the beginning of a stop string', (t) => {
  const matcher = new StopStrings(['aab']);
  t.same(
    [...'caaad'].map((unit) => matcher.push(unit).text),
    ['c', '', '', 'a', 'aad'],
  );
  t.end();
});

test('stop strings that no text can contain, or every text does, are refused', (t) => {
  for (const stop of ['', '\ud800', 'a\udc00']) {
    t.throws(() => new StopStrings(['ok', stop]), { name: 'NdsError', code: 'ERR_REQUEST', message: /stop/ });
  }
  t.end();
});
