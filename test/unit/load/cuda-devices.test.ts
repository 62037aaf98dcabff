/** Devices available to ranks, and the reasons why others are not. */
import t from 'tap';
import { deviceOfRank, usableDevices } from '../../../rank/cuda-devices.ts';
import type { CudaDevice } from '../../../rank/native.ts';

const device = (name: string, computeCapability: string): CudaDevice => ({
  name,
  pciBusId: `0:${name}`,
  computeCapability,
  numMultiprocessors: 100,
  totalBytes: 80e9,
  freeBytes: null,
});
const [a100, h100, v100] = [device('A100', '8.0'), device('H100', '9.0'), device('V100', '7.0')];

t.test('a rank has the device of its local rank, counted round', async (t) => {
  const info = { reason: null, devices: [a100, h100] };
  t.same(
    [0, 1, 2, 3].map((localRank) => deviceOfRank(info, localRank).device?.name),
    ['A100', 'H100', 'A100', 'H100'],
  );
  t.match(deviceOfRank({ reason: null, devices: [] }, 1), { device: null, reason: /found none/ });
  t.match(deviceOfRank({ reason: 'no driver', devices: [] }, 0), { device: null, reason: 'no driver' });
  t.match(deviceOfRank({ reason: null, devices: [h100, v100] }, 1), { device: null, reason: /8\.0 or newer but received 7\.0, V100/ });
});

t.test('devices of a node', async (t) => {
  t.same(usableDevices({ reason: null, devices: [a100, h100] }), { devices: [a100, h100], reason: null });
  t.same(usableDevices({ reason: null, devices: [h100, v100, a100] }), { devices: [h100], reason: null });
  t.match(usableDevices({ reason: null, devices: [v100] }), { devices: [], reason: /received 7\.0/ });
  t.match(usableDevices({ reason: 'no driver', devices: [] }), { devices: [], reason: 'no driver' });
  t.match(usableDevices({ reason: null, devices: [] }), { devices: [], reason: /found none/ });
});
