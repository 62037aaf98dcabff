/** Requests to the hub by `@huggingface/hub`: the commit of a revision, its files, the content of one. */
import { readFileSync } from 'node:fs';
import { NdsError } from '../../protocol/errors.ts';
import { type OpenContent, RangeIgnored } from './blob-download.ts';
import { cachedSnapshot, isFile } from './cache.ts';
import type { HubSettings } from './hub-settings.ts';
import type { HubId } from './model-name.ts';
import type { HubFile } from './needed-files.ts';

/** A connection without an answer for this long counts as lost. */
const answerMs = 30_000;

export class HubClient {
  readonly #settings: HubSettings;
  readonly #id: HubId;

  constructor(settings: HubSettings, id: HubId) {
    [this.#settings, this.#id] = [settings, id];
  }

  /** The commit that the revision means. @throws NdsError `ERR_MODEL_NOT_FOUND`, as each request. */
  async commit(): Promise<string> {
    const { modelInfo } = await import('@huggingface/hub');
    const { repo, revision } = this.#id;
    const { sha } = await this.#ask(() => modelInfo({ name: repo, revision, additionalFields: ['sha'], ...this.#access() }));
    if (/^[0-9a-f]{40}$/.test(sha)) return sha;
    throw new NdsError('ERR_MODEL_NOT_FOUND', `Expected a commit of ${describeId(this.#id)} but received "${sha}"`);
  }

  /** All files of a commit. */
  async files(commit: string): Promise<HubFile[]> {
    const { listFiles } = await import('@huggingface/hub');
    return this.#ask(async () => {
      const files: HubFile[] = [];
      for await (const entry of listFiles({ repo: this.#id.repo, revision: commit, recursive: true, ...this.#access() })) {
        const { type, path, size, oid = '', lfs } = entry;
        if (type === 'file') files.push({ path, size: lfs?.size ?? size, etag: lfs?.oid ?? oid });
      }
      return files;
    });
  }

  /**
   * Opens files of a commit. Plain HTTP also for files that the hub keeps in Xet's chunks: that goes on at any byte.
   * @returns a function that throws `RangeIgnored`, or an `NdsError` where another attempt would fare no better.
   */
  opener(commit: string): OpenContent {
    const { repo } = this.#id;
    const { endpoint } = this.#settings;
    return async ({ path, size, etag }, offset) => {
      const { downloadFile } = await import('@huggingface/hub');
      let answer: Promise<Response> | undefined;
      const fetchOnce: typeof fetch = (...request) => {
        answer = this.#fetch(...request);
        return answer;
      };
      const url = `${endpoint}/${repo}/resolve/${commit}/${path}`;
      const blob = await downloadFile({ repo, path, xet: false, downloadInfo: { size, etag, url }, fetch: fetchOnce });
      const stream = (blob as Blob).slice(offset).stream() as ReadableStream<Uint8Array>;
      // The package makes a text of the error of its stream.
      await answer;
      return stream;
    };
  }

  #access() {
    return { hubUrl: this.#settings.endpoint, fetch: ((...request) => this.#fetch(...request)) as typeof fetch };
  }

  async #ask<T>(request: () => Promise<T>): Promise<T> {
    try {
      return await request();
    } catch (error) {
      throw error instanceof NdsError ? error : this.#unreachable(error);
    }
  }

  async #fetch(url: Parameters<typeof fetch>[0], init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    headers.set('user-agent', 'nano-dist-spec');
    // A range of a compressed answer would be one of its compressed bytes.
    headers.set('accept-encoding', 'identity');
    const token = this.#token();
    // Of the hub alone: the package also follows links of its answers.
    if (token !== null && new URL(String(url)).origin === new URL(this.#settings.endpoint).origin) {
      headers.set('authorization', `Bearer ${token}`);
    }
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(new Error(`no answer for ${answerMs / 1000} s`)), answerMs);
    try {
      const response = await fetch(url, { ...init, headers, signal: controller.signal });
      if (!response.ok) throw await this.#refusal(response);
      if (response.status === 200 && /^bytes=[1-9]/.test(headers.get('range') ?? '')) throw await ended(response, new RangeIgnored());
      return response;
    } finally {
      clearTimeout(timer);
    }
  }

  #token(): string | null {
    const { token, tokenFile } = this.#settings;
    if (token !== null || tokenFile === null || !isFile(tokenFile)) return token;
    return readFileSync(tokenFile, 'utf8').trim() || null;
  }

  /** What an answer other than a success means. */
  #refusal(response: Response): Promise<Error> {
    const { repo } = this.#id;
    const { endpoint } = this.#settings;
    const { status } = response;
    const reason = response.headers.get('x-error-code');
    const refuse = (message: string) => ended(response, new NdsError('ERR_MODEL_NOT_FOUND', message));
    if (reason === 'RevisionNotFound') return refuse(`Expected revision ${this.#id.revision} in ${repo} on ${endpoint} but it has none`);
    if (status === 404 && reason !== 'EntryNotFound') return refuse(`Expected a repository ${repo} on ${endpoint} but received none (404)`);
    if (status === 404) return refuse(`Expected ${response.url} but received 404: the repository ${repo} lacks that file`);
    if (status === 401 || status === 403) {
      const held = this.#token() === null ? 'no token was sent' : 'the token that was sent does not do';
      const advice = `a gated or private one needs a token (HF_TOKEN, or hf auth login) of an account that accepted its licence at ${endpoint}/${repo}`;
      return refuse(
        `Expected access to a repository ${repo} but received ${status}, and ${held}: ${advice}; or there is none of that name`,
      );
    }
    return ended(response, new Error(`status ${status}`));
  }

  #unreachable(error: unknown): NdsError {
    const { message, cause } = error as Error & { cause?: { code?: string; message?: string } };
    const reason = cause?.code ?? cause?.message ?? message;
    return notReachable(this.#id, this.#settings, `none from ${this.#settings.endpoint} (${reason})`, error);
  }
}

/** The one line of a model that the hub cannot give now. */
export function notReachable(id: HubId, { cacheDir }: HubSettings, received: string, cause?: unknown): NdsError {
  const name = describeId(id);
  const cached = cachedSnapshot(cacheDir, id);
  const advice =
    cached === null
      ? `Give a model folder such as ./${id.repo.split('/')[1]}, or copy ${cacheDir} from a machine where ndsrun pull ${name} worked`
      : `The cache has what was downloaded before, in ${cached}`;
  return new NdsError('ERR_MODEL_NOT_FOUND', `Expected ${name} from the hub but received ${received}. ${advice}`, { cause });
}

export function describeId({ repo, revision }: HubId): string {
  return revision === 'main' ? repo : `${repo}@${revision}`;
}

/** Lets the connection go. */
async function ended<E extends Error>(response: Response, error: E): Promise<E> {
  await response.body?.cancel().catch(() => {});
  return error;
}
