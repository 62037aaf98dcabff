/** The peaks that benchmarks compare with are measured on every instruction set that this processor has. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import t from 'tap';
import { native } from '../../rank/native.ts';

const code = `const { native } = await import('./rank/native.ts');
console.log(JSON.stringify(native().testing.probe({ numThreads: 1, bytes: 1e6 })));`;

for (const isa of native().cpuInfo().isas) {
  t.test(isa, async (t) => {
    const { NODE_OPTIONS: _, ...env } = process.env;
    const args = ['-C', 'nds-source', '--import', 'tsx', '--input-type=module', '-e', code];
    const { stdout } = await promisify(execFile)(process.execPath, args, { env: { ...env, NDS_ISA: isa } });
    const peaks = JSON.parse(stdout) as Record<string, number>;
    t.same(Object.keys(peaks), ['readBytesPerSecond', 'flopsPerSecond', 'int8OpsPerSecond']);
    for (const [name, perSecond] of Object.entries(peaks)) t.ok(perSecond > 0 && Number.isFinite(perSecond), `${name}: ${perSecond}`);
  });
}
