/** What the name of a model means: a shipped model, a repository of the hub, or a path. Pure. */

/** Repository and revision of `ORG/NAME@REVISION`. */
export interface HubId {
  /** `ORG/NAME`. */
  readonly repo: string;
  /** A branch, tag or commit. */
  readonly revision: string;
}

export type ModelName =
  | { readonly type: 'shipped'; readonly name: string }
  | ({ readonly type: 'hub' } & HubId)
  | { readonly type: 'path' };

export const shippedPrefix = 'nds:';
/** Names of the models in examples/models. */
export const shippedModels = ['story-5m', 'story-180k'] as const;

const commitPattern = /^[0-9a-f]{40}$/;

/** Whether a revision is a commit, which never means another. */
export function isCommit(revision: string): boolean {
  return commitPattern.test(revision);
}

export function parseModelName(model: string): ModelName {
  if (model.startsWith(shippedPrefix)) return { type: 'shipped', name: model.slice(shippedPrefix.length) };
  const [repo = '', revision = 'main', extra] = model.split('@');
  return extra === undefined && isRepo(repo) && isRevision(revision) ? { type: 'hub', repo, revision } : { type: 'path' };
}

/** `ORG/NAME` by the hub's rules; so `./x`, `/x`, `~/x` and `a/b/c` are paths. */
function isRepo(repo: string): boolean {
  return repo.length <= 96 && /^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/.test(repo) && !/--|\.\.|[-.]$|[-.]\/|\.git$/.test(repo);
}

/** What git allows of a revision, in part: it becomes a path in the cache. */
function isRevision(revision: string): boolean {
  return /^[\w.-]+(?:\/[\w.-]+)*$/.test(revision) && !revision.split('/').some((part) => /^\.|\.\.|\.lock$/.test(part));
}

/** The shipped model that a name nearly spells, with its prefix; null for none. */
export function nearShipped(model: string): string | null {
  const letters = (text: string) => text.toLowerCase().replace(/[^a-z0-9]/g, '');
  const last = letters(model.replace(/^nds:/i, '').replace(/\/+$/, '').split('/').at(-1) ?? '');
  const found = shippedModels.find((name) => letters(name) === last || letters(name).replace('story', '') === last);
  return found === undefined ? null : `${shippedPrefix}${found}`;
}
