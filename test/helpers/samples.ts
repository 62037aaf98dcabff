/** Commands and scripts in the code blocks of a document. Pure. */

/** A code block: its language, its lines, and the number of its first line in the document. */
interface Block {
  readonly language: string;
  readonly text: string;
  readonly line: number;
}

function blocksOf(document: string): Block[] {
  const pattern = /^```(\w+)\n(.*?)^```$/gms;
  return [...document.matchAll(pattern)].map(({ 1: language = '', 2: text = '', index }) => ({
    language,
    text,
    line: document.slice(0, index).split('\n').length + 1,
  }));
}

/** The commands of the `sh` blocks, without comments; a line that ends with a backslash goes on. */
export function commandsOf(document: string): string[] {
  return blocksOf(document)
    .filter(({ language }) => language === 'sh')
    .flatMap(({ text }) => text.replace(/ *\\\n */g, ' ').split('\n'))
    .map((line) => line.replace(/(?:^|\s{2,})# .*$|\s+# .*$/, '').trim())
    .filter((line) => line !== '');
}

/** The scripts of the `ts` blocks, each with the line on which it begins. */
export function scriptsOf(document: string): { readonly line: number; readonly text: string }[] {
  return blocksOf(document).filter(({ language }) => language === 'ts');
}
