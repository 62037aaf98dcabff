/**
 * Rounds of speculative decoding in plain TypeScript over models that are functions, correct or with a known mistake.
 */
import { type AcceptRule, limits, nextToken, numAccepted, type Probabilities } from '../references/accept.ts';
import type { Draws } from './enumerate-draws.ts';
import { at } from './testing.ts';

/** The distribution of the token after a text. */
export type Model = (text: readonly number[]) => Probabilities;

/** How rounds are played: correctly, except for the mistakes set here. */
export interface Play {
  readonly rule: AcceptRule;
  readonly numDrafts: number;
  readonly p: Model;
  readonly q: Model;
  /** A draft less likely than this ends the round; it is kept. */
  readonly stopBelow?: number;
  /** Mistake 1: the residual is drawn with the draft's number at that position. */
  readonly residualIsDraft?: boolean;
  /** Mistake 2: addresses do not contain the round. */
  readonly keyedByPosition?: boolean;
  /** Mistake 3: a draft less likely than this ends the round and is dropped. */
  readonly dropBelow?: number;
  /** Mistake 4: drafts are judged by these instead of the distributions p and q. */
  readonly judgedByP?: Model;
  readonly judgedByQ?: Model;
}

/** Tokens of one round after `text`. */
export function playRound(draws: Draws, play: Play, text: readonly number[]): number[] {
  const { rule, p, q, judgedByP = p, judgedByQ = q, stopBelow = 0, dropBelow = 0 } = play;
  const address = (stream: string, ahead: number): string =>
    `${stream} ${text.length + ahead} ${play.keyedByPosition === true ? '' : text.length}`;
  const drafts: number[] = [];
  while (drafts.length < play.numDrafts) {
    const probabilities = q([...text, ...drafts]);
    const token = draws.pick(address('draft', drafts.length), probabilities);
    if (at(probabilities, token) < dropBelow) break;
    drafts.push(token);
    if (at(probabilities, token) < stopBelow) break;
  }
  const after = (model: Model, num: number): Probabilities[] =>
    Array.from({ length: num }, (_, j) => model([...text, ...drafts.slice(0, j)]));
  const round = { drafts, q: after(judgedByQ, drafts.length), p: after(judgedByP, drafts.length + 1) };
  const isBelow = limits(rule, round).map((limit, j) => draws.isBelow(address('accept', j), limit));
  const accepted = numAccepted(rule, isBelow);
  const stream = play.residualIsDraft === true ? 'draft' : 'residual';
  return [...drafts.slice(0, accepted), draws.pick(address(stream, accepted), nextToken(rule, round, accepted))];
}

/** The first `numTokens` tokens of consecutive rounds. */
export function playRounds(draws: Draws, play: Play, numTokens: number): number[] {
  let tokens: number[] = [];
  while (tokens.length < numTokens) tokens = [...tokens, ...playRound(draws, play, tokens)];
  return tokens.slice(0, numTokens);
}
