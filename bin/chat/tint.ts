/** Accepted drafts in colour. */
import type { StreamChunk } from '../../rank/index.ts';

const [green, plain] = ['\u001b[32m', '\u001b[39m'];

/**
 * A chunk's text with the tokens that were accepted drafts in green; `logprobs` names the text of each token. Text of
 * tokens that are no whole characters, or that waited for later ones, stays as it is. Pure.
 */
export function tinted({
  text,
  logprobs,
  drafted,
  finishReason,
}: Pick<StreamChunk, 'text' | 'logprobs' | 'drafted' | 'finishReason'>): string {
  // A token that ends the text is no part of it.
  const pieces = (finishReason === 'stop' ? logprobs?.slice(0, -1) : logprobs)?.map(({ token }) => token ?? '') ?? [];
  const accepted = pieces.slice(0, drafted?.numAccepted ?? 0).join('');
  if (accepted === '' || pieces.join('') !== text) return text;
  return `${green}${accepted}${plain}${text.slice(accepted.length)}`;
}
