/** Stop strings in streamed text against a search of the whole text. */
import { test } from 'tap';
import { type MarkedText, StopStrings } from '../../../rank/text/stop-strings.ts';
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

/** The definition with hidden text: of the stop strings that end first, with hidden text in them or without, the longest. */
function searchMarked(stops: string[], texts: readonly MarkedText[]): { text: string; stop: string | null } {
  const units = texts.flatMap(({ text, isHidden }) => [...text].map((unit) => ({ unit, isHidden })));
  const textOf = (some: typeof units) => some.map(({ unit }) => unit).join('');
  for (let end = 1; end <= units.length; end++) {
    const before = units.slice(0, end);
    const shown = before.filter(({ isHidden }) => !isHidden);
    const endings = stops.flatMap((stop) => {
      const marked = before.slice(-stop.length);
      const isMarked = textOf(marked) === stop && marked.some(({ isHidden }) => isHidden);
      if (isMarked) return [{ stop, text: textOf(before.slice(0, -stop.length).filter(({ isHidden }) => !isHidden)) }];
      const isShown = units[end - 1]?.isHidden === false && textOf(shown).endsWith(stop);
      return isShown ? [{ stop, text: textOf(shown.slice(0, -stop.length)) }] : [];
    });
    const [longest] = endings.sort((a, b) => b.stop.length - a.stop.length);
    if (longest !== undefined) return longest;
  }
  return { text: textOf(units.filter(({ isHidden }) => !isHidden)), stop: null };
}

/** Feeds texts cut after the given numbers of code units, as a token each. */
function runMarked(stops: string[], texts: readonly MarkedText[], includeStop: boolean) {
  const matcher = new StopStrings(stops, includeStop);
  let out = '';
  for (const marked of texts) {
    const { text, stop } = matcher.push(marked.isHidden ? '' : marked.text, [marked]);
    out += text;
    if (stop !== null) return { text: out, stop };
  }
  return { text: out + matcher.finish(), stop: null };
}

test('hidden text is searched too, at every cut, and never comes out unless asked for', (t) => {
  const pick = randomIntegers(5);
  const word = (letters: string, longest: number) =>
    Array.from({ length: 1 + pick(longest) }, () => letters.charAt(pick(letters.length))).join('');
  for (let round = 0; round < 1500; round++) {
    const stops = Array.from({ length: 1 + pick(3) }, () => word('ab<>', 6));
    const texts = Array.from({ length: 1 + pick(8) }, () => ({ text: word('ab<>', 4), isHidden: pick(3) === 0 }));
    const expected = searchMarked(stops, texts);
    const units = texts.flatMap(({ text, isHidden }) => [...text].map((unit) => ({ text: unit, isHidden })));
    const halves = texts.flatMap(({ text, isHidden }) => [text.slice(0, 1), text.slice(1)].map((half) => ({ text: half, isHidden })));
    for (const cut of [texts, units, halves]) {
      const { text, stop } = runMarked(stops, cut, false);
      if (text !== expected.text || stop !== expected.stop) t.fail(JSON.stringify({ stops, cut, text, stop, expected }));
      const included = runMarked(stops, cut, true);
      if (included.text !== expected.text + (expected.stop ?? '')) t.fail(`included: ${JSON.stringify({ stops, cut, included })}`);
    }
  }
  t.end();
});
