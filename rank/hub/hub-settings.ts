/** Where the hub and its cache are: the environment variables of Python's huggingface_hub, with the same defaults. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { NdsError } from '../../protocol/errors.ts';

type Environment = Readonly<Record<string, string | undefined>>;

export interface HubSettings {
  /** Folder of `models--ORG--NAME`. */
  readonly cacheDir: string;
  /** Base URL without a slash at its end. */
  readonly endpoint: string;
  /** Token of `HF_TOKEN`; null = that of `tokenFile`, if any. */
  readonly token: string | null;
  /** Null when no token may be sent. */
  readonly tokenFile: string | null;
  readonly isOffline: boolean;
  /** Whether snapshots are links to blobs, as by default; else copies. */
  readonly usesSymlinks: boolean;
}

/** Pure. @throws NdsError `ERR_USAGE` for an `HF_ENDPOINT` that is no URL. */
export function readHubSettings(env: Environment = process.env, home: string = homedir()): HubSettings {
  const first = (...names: readonly string[]) => names.map((name) => env[name]).find((value) => value !== undefined && value !== '');
  const path = (...names: readonly string[]) => {
    const value = first(...names);
    return value === undefined ? undefined : expandPath(value, env, home);
  };
  const isTrue = (...names: readonly string[]) => /^(?:1|on|yes|true)$/i.test(first(...names) ?? '');
  const hfHome = path('HF_HOME') ?? join(path('XDG_CACHE_HOME') ?? join(home, '.cache'), 'huggingface');
  const hidesToken = isTrue('HF_HUB_DISABLE_IMPLICIT_TOKEN');
  return {
    cacheDir: path('HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE') ?? join(hfHome, 'hub'),
    endpoint: readEndpoint(first('HF_ENDPOINT') ?? 'https://huggingface.co'),
    token: hidesToken ? null : first('HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN')?.trim() || null,
    tokenFile: hidesToken ? null : (path('HF_TOKEN_PATH') ?? join(hfHome, 'token')),
    isOffline: isTrue('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE'),
    usesSymlinks: !isTrue('HF_HUB_DISABLE_SYMLINKS'),
  };
}

/** `~` and `$VARIABLE`, as Python expands them; an unknown variable stays as it is. */
function expandPath(path: string, env: Environment, home: string): string {
  const withVariables = path.replace(/\$(?:(\w+)|\{(\w+)\})/g, (whole, plain, braced) => env[plain ?? braced] ?? whole);
  return withVariables.replace(/^~(?=\/|$)/, () => home);
}

function readEndpoint(value: string): string {
  const protocol = URL.canParse(value) ? new URL(value).protocol : '';
  if (protocol === 'https:' || protocol === 'http:') return value.replace(/\/+$/, '');
  throw new NdsError('ERR_USAGE', `Expected a URL such as https://huggingface.co for HF_ENDPOINT but received "${value}"`);
}
