/** Pasted text between the marks that a terminal sends around it: its newlines do not end the line that is edited. Pure. */

/** Asks a terminal for the marks, and not to send them any more. */
export const [enablePasteMarks, disablePasteMarks] = ['\u001b[?2004h', '\u001b[?2004l'];

const [begin, end] = ['\u001b[200~', '\u001b[201~'];
/** Stands for a newline in the line that is edited. */
const newlineSymbol = '\u2424';

/** A line as it was pasted, without the newline at its end. */
export function withNewlines(line: string): string {
  return line.replaceAll(newlineSymbol, '\n').replace(/\n$/, '');
}

export class PasteFilter {
  #isPasting = false;
  /** The begin of a mark that the next keys may complete. */
  #partial = '';

  #endedInReturn = false;

  /** Keys as a line editor takes them. */
  push(keys: string): string {
    let rest = this.#partial + keys;
    this.#partial = '';
    let out = '';
    while (rest !== '') {
      const mark = this.#isPasting ? end : begin;
      const at = rest.indexOf(mark);
      if (at < 0) {
        // A key of its own, as Escape is, does not wait.
        const held = partialMark(rest, mark, this.#isPasting ? 1 : 2);
        this.#partial = rest.slice(rest.length - held);
        return out + this.#shown(rest.slice(0, rest.length - held));
      }
      out += this.#shown(rest.slice(0, at));
      rest = rest.slice(at + mark.length);
      this.#isPasting = !this.#isPasting;
    }
    return out;
  }

  #shown(text: string): string {
    if (!this.#isPasting) return text;
    // The second half of a newline of two keys.
    const rest = this.#endedInReturn && text.startsWith('\n') ? text.slice(1) : text;
    if (text !== '') this.#endedInReturn = text.endsWith('\r');
    // biome-ignore lint/suspicious/noControlCharactersInRegex: pasted control characters are no commands to the editor.
    return rest.replace(/\r\n|[\r\n]/g, newlineSymbol).replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, '');
  }
}

/** Length of the longest end of `text`, of at least `minimum`, with which `mark` begins. */
function partialMark(text: string, mark: string, minimum: number): number {
  for (let length = mark.length - 1; length >= minimum; length--) if (text.endsWith(mark.slice(0, length))) return length;
  return 0;
}
