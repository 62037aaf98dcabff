/** Rounds of speculative decoding in plain TypeScript over models that are functions, right or with a known mistake. */
import { type AcceptRule, limits, nextToken, numAccepted, type Probabilities } from '../references/accept.ts';
import type { Draws } from './enumerate-draws.ts';
import { at } from './testing.ts';

/** What comes next after these tokens. */
export type Model = (text: readonly number[]) => Probabilities;

/** How rounds are played: as they should be, but for what is named here. */
export interface Play {
  readonly rule: AcceptRule;
  readonly numDrafts: number;
  readonly p: Model;
  readonly q: Model;
  /** Drafts less likely than this are the last of their round; they are kept. */
  readonly stopBelow?: number;
  /** Trap 1: the residual's draw is the draft's at that position again. */
  readonly residualIsDraft?: boolean;
  /** Trap 2: addresses without the round. */
  readonly keyedByPosition?: boolean;
  /** Trap 3: drafts less likely than this are thrown away, and end the round. */
  readonly dropBelow?: number;
  /** Trap 4: what drafts are judged by, where that is not what they were drawn from or what the text should follow. */
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

/** Rounds until there are n tokens. */
export function playRounds(draws: Draws, play: Play, numTokens: number): number[] {
  let tokens: number[] = [];
  while (tokens.length < numTokens) tokens = [...tokens, ...playRound(draws, play, tokens)];
  return tokens.slice(0, numTokens);
}
