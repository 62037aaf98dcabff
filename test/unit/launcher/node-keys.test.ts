/** Keys of a node's ranks: ZeroMQ's text and curve, and what is equal on all nodes. */
import t from 'tap';
import { Pull, Push } from 'zeromq';
import { commKey, NodeKeys } from '../../../launcher/node-keys.ts';
import { encodeZ85 } from '../../../protocol/z85.ts';

const secret = 'ab'.repeat(32);

t.test("ZeroMQ's text of a key", async (t) => {
  // The example of RFC 32.
  t.equal(encodeZ85(Buffer.from('864fd26fb559f75b', 'hex')), 'HelloWorld');
});

t.test('ZeroMQ takes the keys: the public one belongs to the secret one', async (t) => {
  const [server, client] = [new NodeKeys(secret, 1, '127.0.0.1'), new NodeKeys(secret, 1, '127.0.0.1')];
  const publicKeys = [...server.renew(0), ...client.renew(0)];
  const [own, other] = [server.of(0, publicKeys).curve, client.of(0, publicKeys).curve];
  const pull = new Pull({ curveServer: true, curveSecretKey: own.secretKey, linger: 0 });
  await pull.bind('tcp://127.0.0.1:*');
  const { publicKey: curvePublicKey, secretKey: curveSecretKey } = other;
  const push = new Push({ curveServerKey: own.publicKey, curvePublicKey, curveSecretKey, linger: 0 });
  push.connect(pull.lastEndpoint as string);
  await push.send('hello');
  t.equal(String((await pull.receive())[0]), 'hello');
  push.close();
  pull.close();
});

t.test('each epoch has other keys; the key of the collectives is equal on all nodes', async (t) => {
  const [zero, one] = [new NodeKeys(secret, 2, 'a'), new NodeKeys(secret, 2, 'b')];
  const seen = new Set<string>();
  for (const epoch of [0, 1]) {
    for (const key of [...zero.renew(epoch), ...one.renew(epoch)]) seen.add(key);
    t.equal(zero.of(0, []).commKey, one.of(1, []).commKey);
    t.match(zero.of(0, []), { localAddr: 'a', commKey: /^[\da-f]{32}$/ });
  }
  t.equal(seen.size, 8);
  t.equal(new Set([commKey(secret, 0), commKey(secret, 1), commKey('cd'.repeat(32), 0)]).size, 3);
  t.throws(() => zero.of(2, []), RangeError);
});

t.test('keys of many epochs, with the collector at work, do not stop the launcher', async (t) => {
  // With exported key objects, Node 20 stands still for ever within these.
  const pairs = new NodeKeys(secret, 12_000, 'a').renew(0);
  t.equal(new Set(pairs).size, 12_000);
});
