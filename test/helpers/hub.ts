/** A small hub on loopback: the part of huggingface.co's interface that downloads use, with failures on request. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Repo {
  /** Content by path. */
  files: Record<string, Buffer>;
  commit: string;
  /** Other revisions than `main` and the commit. */
  revisions?: readonly string[];
  /** The token that may read it. */
  token?: string;
}

/** Failures of the content of files in LFS. */
export interface Faults {
  /** Ends the connection after this many bytes of each answer, for this many answers. */
  cutAfter?: { bytes: number; times: number };
  /** Sends other bytes than those that were hashed. */
  corrupt?: boolean;
  /** Sends the whole file whatever range is asked for. */
  ignoresRange?: boolean;
  /** Between 64 KiB and the next. */
  chunkDelayMs?: number;
  /** Size of a file in LFS by the list of files. */
  claimedBytes?: number;
  /** Answers with this status, for this many requests. */
  status?: { code: number; times: number };
}

export interface Hub {
  readonly url: string;
  readonly repos: Record<string, Repo>;
  faults: Faults;
  /** `METHOD path range` of each request, without the query. */
  readonly requests: string[];
  /** Tokens that came to the other host, where LFS content is. */
  readonly leaked: string[];
  /** Bytes of LFS content that were sent. */
  readonly sent: { bytes: number };
}

export const tinyRepo = 'nano-test/tiny';
const tinyCommit = 'c0ffee'.padEnd(40, '0');

/** story-180k as a repository, with files beside it that nothing here reads. */
export function tinyFiles(): Record<string, Buffer> {
  const folder = new URL('../../examples/models/story-180k', import.meta.url).pathname;
  const files = readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))] as const);
  const unused = [
    'original/model.safetensors',
    'consolidated.safetensors',
    'pytorch_model.bin',
    'model-q4.gguf',
    'onnx/model.onnx',
    'README.md',
  ];
  return { ...Object.fromEntries(files), ...Object.fromEntries(unused.map((name) => [name, Buffer.from(name)])) };
}

/** The weights of a repository cut into two files with an index. */
export function shardedFiles(): Record<string, Buffer> {
  const { 'model.safetensors': weights = Buffer.alloc(0), ...others } = tinyFiles();
  const headerEnd = 8 + Number(weights.readBigUInt64LE());
  type Entry = { dtype: string; shape: number[]; data_offsets: [number, number] };
  const { __metadata__: _, ...entries } = JSON.parse(weights.toString('utf8', 8, headerEnd)) as Record<string, Entry>;
  const names = Object.keys(entries);
  const parts = [names.slice(0, names.length / 2), names.slice(names.length / 2)];
  const weightMap: Record<string, string> = {};
  const shards = parts.map((part, i) => {
    const file = `model-0000${i + 1}-of-00002.safetensors`;
    let end = 0;
    const data: Buffer[] = [];
    const header: Record<string, Entry> = {};
    for (const name of part) {
      const { data_offsets, ...entry } = entries[name] as Entry;
      const bytes = weights.subarray(headerEnd + data_offsets[0], headerEnd + data_offsets[1]);
      data.push(bytes);
      header[name] = { ...entry, data_offsets: [end, end + bytes.length] };
      end += bytes.length;
      weightMap[name] = file;
    }
    const json = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(json.length));
    return [file, Buffer.concat([length, json, ...data])] as const;
  });
  const index = Buffer.from(JSON.stringify({ metadata: {}, weight_map: weightMap }));
  return { ...others, ...Object.fromEntries(shards), 'model.safetensors.index.json': index };
}

interface TestLike {
  teardown(end: () => void): unknown;
}

/** Starts a hub that has `nano-test/tiny`; it ends with the test. */
export async function startHub(t: TestLike): Promise<Hub> {
  const repos: Record<string, Repo> = { [tinyRepo]: { files: tinyFiles(), commit: tinyCommit } };
  const hub = { url: '', repos, faults: {} as Faults, requests: [] as string[], leaked: [] as string[], sent: { bytes: 0 } };
  const server = createServer((request, response) => {
    answer(hub, request, response).catch((error) => response.destroy(error));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  hub.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return hub;
}

/** A git blob's id. */
export const gitHash = (bytes: Buffer) => createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
export const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
const isLfs = (path: string) => /\.(?:safetensors|bin|gguf|onnx)$/.test(path);

async function answer(hub: Hub, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = decodeURIComponent(new URL(request.url ?? '', 'http://hub').pathname);
  hub.requests.push(`${request.method} ${path} ${request.headers.range ?? ''}`.trim());
  const [, oid] = /^\/lfs\/(\w+)$/.exec(path) ?? [];
  if (oid !== undefined) {
    if (request.headers.authorization !== undefined) hub.leaked.push(request.headers.authorization);
    return sendLfs(hub, oid, request, response);
  }
  const [, name = '', rest = ''] = /^\/(?:api\/models\/)?([^/]+\/[^/]+)(?:\/(.*))?$/.exec(path) ?? [];
  const repo = hub.repos[name];
  if (repo === undefined) return refuse(response, 404, 'RepoNotFound');
  if (repo.token !== undefined && request.headers.authorization !== `Bearer ${repo.token}`)
    return refuse(response, request.headers.authorization === undefined ? 401 : 403, 'GatedRepo');
  const [kind, ...more] = rest.split('/');
  const known = ['main', repo.commit, ...(repo.revisions ?? [])];
  const revision = kind === '' ? 'main' : known.find((one) => `${more.join('/')}/`.startsWith(`${one}/`));
  if (revision === undefined) return refuse(response, 404, 'RevisionNotFound');
  const file = more.join('/').slice(revision.length + 1);
  if (path.startsWith('/api/')) return sendJson(response, kind === 'tree' ? tree(repo, hub.faults) : info(name, repo));
  return sendFile(repo, file, new URL(`http://localhost:${new URL(hub.url).port}`), request, response);
}

function info(name: string, { commit, files }: Repo) {
  const siblings = Object.keys(files).map((rfilename) => ({ rfilename }));
  const at = '2026-01-01T00:00:00.000Z';
  return {
    _id: '1',
    id: name,
    modelId: name,
    sha: commit,
    private: false,
    gated: false,
    downloads: 0,
    likes: 0,
    lastModified: at,
    siblings,
  };
}

function tree({ files }: Repo, { claimedBytes }: Faults) {
  return Object.entries(files).map(([path, bytes]) => {
    const lfs = isLfs(path) ? { oid: sha256(bytes), size: claimedBytes ?? bytes.length, pointerSize: 130 } : undefined;
    return { type: 'file', oid: gitHash(bytes), size: bytes.length, path, lfs };
  });
}

function sendFile({ files, commit }: Repo, path: string, lfs: URL, request: IncomingMessage, response: ServerResponse): void {
  const bytes = files[path];
  if (bytes === undefined) return refuse(response, 404, 'EntryNotFound');
  response.setHeader('x-repo-commit', commit);
  if (!isLfs(path)) return sendRange(bytes, gitHash(bytes), false, request, response);
  response.setHeader('x-linked-etag', `"${sha256(bytes)}"`).setHeader('x-linked-size', bytes.length);
  response.writeHead(302, { location: new URL(`/lfs/${sha256(bytes)}`, lfs).href }).end();
}

async function sendLfs(hub: Hub, oid: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { faults } = hub;
  if (faults.status !== undefined && faults.status.times-- > 0) return refuse(response, faults.status.code, 'Busy');
  const found = Object.values(hub.repos)
    .flatMap(({ files }) => Object.values(files))
    .find((bytes) => sha256(bytes) === oid);
  if (found === undefined) return refuse(response, 404, 'EntryNotFound');
  const bytes = faults.corrupt ? Buffer.from(found).fill(7, found.length - 4) : found;
  const [, begin = '0'] = faults.ignoresRange ? [] : (/^bytes=(\d+)-/.exec(request.headers.range ?? '') ?? []);
  const cut = faults.cutAfter !== undefined && faults.cutAfter.times-- > 0 ? faults.cutAfter.bytes : null;
  if (cut === null && !faults.chunkDelayMs) {
    hub.sent.bytes += request.method === 'HEAD' ? 0 : bytes.length - Number(begin);
    return sendRange(bytes, oid, faults.ignoresRange === true, request, response);
  }
  writeHead(bytes, Number(begin), oid, response);
  const end = cut === null ? bytes.length : Math.min(bytes.length, Number(begin) + cut);
  for (let at = Number(begin); at < end && !response.destroyed; at += 1 << 16) {
    const chunk = bytes.subarray(at, Math.min(end, at + (1 << 16)));
    hub.sent.bytes += chunk.length;
    await new Promise((resolve) => response.write(chunk, resolve));
    if (faults.chunkDelayMs) await sleep(faults.chunkDelayMs);
  }
  if (cut === null) response.end();
  else response.destroy();
}

function writeHead(bytes: Buffer, begin: number, etag: string, response: ServerResponse): void {
  response.setHeader('etag', `"${etag}"`).setHeader('content-length', bytes.length - begin);
  if (begin > 0) response.setHeader('content-range', `bytes ${begin}-${bytes.length - 1}/${bytes.length}`);
  response.writeHead(begin > 0 ? 206 : 200);
}

function sendRange(bytes: Buffer, etag: string, isWhole: boolean, request: IncomingMessage, response: ServerResponse): void {
  const [, begin = '0'] = isWhole ? [] : (/^bytes=(\d+)-/.exec(request.headers.range ?? '') ?? []);
  writeHead(bytes, Number(begin), etag, response);
  response.end(request.method === 'HEAD' ? undefined : bytes.subarray(Number(begin)));
}

function sendJson(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

function refuse(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, { 'x-error-code': code, 'content-type': 'application/json' }).end(JSON.stringify({ error: code }));
}
