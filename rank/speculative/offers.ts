/** The draft sources of a sequence: its text and the draft model. */
import type { Sequence } from '../scheduler/sequence.ts';
import type { ResolvedSpeculativeConfig } from './config.ts';
import { type Acceptance, AcceptanceEstimate, type SharedAcceptance } from './policy/acceptance.ts';
import { NgramProposer } from './proposers/ngram.ts';
import { noOffer, type Offer, type Proposer } from './proposers/proposer.ts';
import { type SuffixCache, SuffixProposer } from './proposers/suffix.ts';

/** Acceptance of drafts from a text: products of the proposer's confidences. */
export class OfferAcceptance implements Acceptance {
  readonly learns = false;
  /** `[numDrafts + 1]` */
  readonly #survival: readonly number[];

  constructor({ confidences }: Offer) {
    const survival = [1];
    for (const confidence of confidences) survival.push((survival.at(-1) as number) * confidence);
    this.#survival = survival;
  }

  survivals(): readonly number[] {
    return this.#survival;
  }

  observe(): void {}

  /** Expected accepted drafts. */
  get expectedLength(): number {
    return this.#survival.reduce((sum, survival) => sum + survival, -1);
  }
}

/** The sources of one sequence. */
export class SequenceSources {
  /** Acceptance of the draft model's drafts; null without one. */
  readonly model: AcceptanceEstimate | null;
  readonly #proposers: readonly Proposer[];

  constructor(config: ResolvedSpeculativeConfig, model: SharedAcceptance | null, cache: SuffixCache) {
    this.model = model === null ? null : new AcceptanceEstimate(model);
    this.#proposers = config.methods.flatMap((method): Proposer[] => {
      if (method === 'ngram') return [new NgramProposer(config)];
      return method === 'suffix' ? [new SuffixProposer(config, cache)] : [];
    });
  }

  /** Whether any source drafts from the text. */
  get readsText(): boolean {
    return this.#proposers.length > 0;
  }

  /** The text's offer of most expected accepted drafts, from the tokens known so far. */
  offer(sequence: Sequence, most: number): { readonly offer: Offer; readonly acceptance: OfferAcceptance } {
    let best = { offer: noOffer, acceptance: new OfferAcceptance(noOffer) };
    for (const proposer of this.#proposers) {
      const offer = proposer.propose(sequence.tokenIds, most);
      const acceptance = new OfferAcceptance(offer);
      if (acceptance.expectedLength > best.acceptance.expectedLength) best = { offer, acceptance };
    }
    return best;
  }
}
