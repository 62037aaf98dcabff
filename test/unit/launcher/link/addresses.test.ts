/** The address that node 0 listens on, and the token file. */
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { listenAddress, localAddress } from '../../../../launcher/link/addresses.ts';
import { deriveKey, readToken } from '../../../../launcher/link/token.ts';

const loopback = { address: '127.0.0.1', isInternal: true };
const lan = { address: '10.0.0.5', isInternal: false };
const own = [loopback, lan, { address: 'fe80::1', isInternal: false }];

t.test('where node 0 listens', async (t) => {
  t.equal(listenAddress('10.0.0.5', ['10.0.0.5'], own), '10.0.0.5');
  t.equal(listenAddress('gpu01', ['127.0.1.1', '10.0.0.5'], own), '10.0.0.5', 'an address that others reach goes first');
  t.equal(listenAddress('gpu01', ['127.0.1.1'], own), '10.0.0.5', "Debian's own name");
  t.equal(listenAddress('localhost', ['::1', '127.0.0.1'], own), '::1');
  t.equal(listenAddress('127.0.0.7', ['127.0.0.7'], own), '127.0.0.7');
  const refused: [host: string, resolved: string[], addresses: typeof own, message: RegExp][] = [
    [
      '203.0.113.9',
      ['203.0.113.9'],
      own,
      /Expected an address of this machine, node 0, .* received 203\.0\.113\.9; it has 10\.0\.0\.5.*--local-addr/,
    ],
    ['lb.example', ['203.0.113.9'], own, /received lb\.example, which is 203\.0\.113\.9 here/],
    [
      'gpu01',
      ['127.0.1.1'],
      [...own, { address: '10.1.0.5', isInternal: false }],
      /that other nodes reach .* give --local-addr one of 10\.0\.0\.5/,
    ],
    ['0.0.0.0', ['0.0.0.0'], own, /Expected one address for --master-addr but received 0\.0\.0\.0, which is all of them/],
    ['::', ['::'], own, /which is all of them/],
  ];
  for (const [host, resolved, addresses, message] of refused) {
    t.throws(() => listenAddress(host, resolved, addresses), { code: 'ERR_USAGE', message }, host);
  }
  t.equal(localAddress('gpu01', ['10.0.0.5'], own), '10.0.0.5');
  t.throws(() => localAddress('10.9.9.9', ['10.9.9.9'], own), {
    code: 'ERR_USAGE',
    message: /for --local-addr but received 10\.9\.9\.9; it has/,
  });
  t.throws(() => localAddress('0.0.0.0', ['0.0.0.0'], own), { code: 'ERR_USAGE' });
});

t.test('token files', async (t) => {
  const dir = t.testdir({ folder: {} });
  const file = (name: string, text: string, mode: number) => {
    writeFileSync(join(dir, name), text);
    chmodSync(join(dir, name), mode);
    return join(dir, name);
  };
  t.equal(String(readToken(file('good', '  0123456789abcdef\n', 0o600))), '0123456789abcdef');
  t.doesNotThrow(() => readToken(file('group', '0123456789abcdef', 0o440)), 'as Kubernetes mounts it');
  const refused: [file: string, message: RegExp][] = [
    [join(dir, 'none'), /but received none$/],
    [join(dir, 'folder'), /received a folder/],
    [file('open', '0123456789abcdef', 0o644), /no other user reads or writes for --token-file .*open but received mode 0644: chmod 600 /],
    [file('written', '0123456789abcdef', 0o620), /mode 0620/],
    [file('short', ' 0123456789abcde ', 0o600), /at least 16 bytes .* received one of 15$/],
    [file('long', 'x'.repeat(4097), 0o600), /at most 4096 bytes/],
  ];
  for (const [path, message] of refused) t.throws(() => readToken(path), { code: 'ERR_USAGE', message });
});

t.test('keys of one secret', async (t) => {
  const [a, b] = [Buffer.from('a secret'), Buffer.from('another')];
  t.equal(deriveKey(a, 'link', 32).toString('hex'), deriveKey(a, 'link', 32).toString('hex'));
  t.equal(new Set([deriveKey(a, 'link', 16), deriveKey(b, 'link', 16), deriveKey(a, 'comm', 16)].map(String)).size, 3);
});
