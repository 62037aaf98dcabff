/** The check of machine code: on listings that are known, and on the library where nvcc built it. */
import { join } from 'node:path';
import t from 'tap';
import { addonFolder } from '../../native/load.mjs';
import { findPackageRoot } from '../../native/tools/sources.mjs';
import { checkKernel, checkLibrary, checkSass, parseSass } from './machine-code.mjs';

/** Loads of weights written before the wait, as `ld.relaxed.gpu` and as `ld.global.nc`, by nvcc 13.0 for sm_90: shortened, and one given a predicate. */
const recorded = `
		Function : _ZN3nds4cuda46_GLOBAL__N__6664b4e1_13_linear_few_cu_82238f3110few_kernelILi2EEvPK5uint4S2_PS0_
	.headerflags	@"EF_CUDA_SM90 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM90)"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                                /* 0x00000a00ff017b82 */
                                                                                         /* 0x000fe20000000800 */
        /*0040*/                   IMAD.WIDE.U32 R2, R0, 0x10, R2 ;                      /* 0x0000001000027825 */
        /*0050*/                   LDG.E.128.STRONG.GPU R20, desc[UR4][R2.64] ;          /* 0x0000000402147981 */
        /*0060*/              @!P0 LDG.E.128.STRONG.GPU R12, desc[UR4][R2.64+0x4000] ;   /* 0x00400004020c7981 */
        /*0090*/                   ACQBULK ;                                             /* 0x000000000000782e */
        /*00b0*/                   PREEXIT ;                                             /* 0x000000000000782d */
        /*00e0*/                   LDG.E.128 R16, desc[UR4][R16.64] ;                    /* 0x0000000410107981 */
        /*01c0*/                   STG.E.128 desc[UR4][R2.64], R4 ;                      /* 0x0000000402007986 */
        /*01d0*/                   EXIT ;                                                /* 0x000000000000794d */
        /*01e0*/                   BRA 0x1e0;                                            /* 0xfffffffc00fc7947 */
		..........
		Function : _ZN3nds4cuda46_GLOBAL__N__6664b4e1_13_linear_few_cu_82238f3110few_kernelILi1EEvPK5uint4S2_PS0_
        /*0030*/                   ULDC.64 UR4, c[0x0][0x208] ;                          /* 0x0000820000047ab9 */
        /*0040*/                   ACQBULK ;                                             /* 0x000000000000782e */
        /*0060*/                   LDG.E.NA.128.CONSTANT R20, desc[UR4][R2.64] ;         /* 0x0000000402147981 */
        /*0070*/                   LDG.E.NA.128.CONSTANT R12, desc[UR4][R2.64+0x4000] ;  /* 0x00400004020c7981 */
        /*00b0*/                   PREEXIT ;                                             /* 0x000000000000782d */
        /*00e0*/                   LDG.E.128 R16, desc[UR4][R16.64] ;                    /* 0x0000000410107981 */
        /*01c0*/                   STG.E.128 desc[UR4][R2.64], R4 ;                      /* 0x0000000402007986 */
        /*01d0*/                   EXIT ;                                                /* 0x000000000000794d */
`;
const [relaxed, moved] = parseSass(recorded).map(({ instructions }) => instructions);
const expected = { earlyLoads: 2 };

t.test('early loads before the wait pass, loads that nvcc moved behind it do not', async (t) => {
  t.same(
    relaxed?.slice(3, 6),
    [
      { address: 0x60, name: 'LDG.E.128.STRONG.GPU', operands: 'R12, desc[UR4][R2.64+0x4000]' },
      { address: 0x90, name: 'ACQBULK', operands: '' },
      { address: 0xb0, name: 'PREEXIT', operands: '' },
    ],
    'predicates and operands',
  );
  t.same(checkKernel(relaxed ?? [], expected), []);
  t.same(checkKernel(moved ?? [], expected), ['has 0 loads before its wait where 2 are written']);
});

t.test('every fault is found', async (t) => {
  const [, , first, , wait, trigger, load] = relaxed ?? [];
  const faults = (...instructions: (typeof first)[]) => checkKernel(instructions.flatMap((one) => one ?? []));
  const at = (address: number, name: string, operands = '') => ({ address, name, operands });
  t.same(faults(load), ['does not wait for the launch before (ACQBULK)']);
  t.match(faults(first, wait, load), [/^touches memory before its wait: LDG.E.128.STRONG.GPU/], 'no kernel but one may load early');
  t.match(faults(at(0, 'STG.E', '[R2], R4'), wait, load), [/^touches memory before its wait: STG.E \[R2\], R4 at 0x0$/]);
  t.match(faults(at(0, 'LDGSTS.E.BYPASS.128'), wait, load), [/^touches memory/]);
  t.match(faults(trigger, wait, load), [/^lets the next launch start before its wait/]);
  t.match(faults(at(0, 'EXIT'), wait, load), [/^has a way round its wait: EXIT/]);
  t.match(faults(at(0, 'BRA', '0x1e0'), wait, load), [/^has a way round its wait: BRA 0x1e0/]);
  t.same(faults(at(0, 'BRA', '0x80'), wait, load), [], 'a loop before the wait');
  t.same(faults(wait), ['touches no memory behind its wait']);
  t.match(faults(wait, load, at(0x100, 'STL', '[R1], R2')), [/^spills registers: STL/]);
  t.match(checkKernel([...(relaxed ?? []), at(0x200, 'LDG.E.128.STRONG.GPU')], expected), [/^has an early load behind its wait/]);
});

t.test('a kernel that is not there is a fault', async (t) => {
  const results = checkSass(recorded);
  t.equal(results.filter(({ symbol }) => symbol.includes('few_kernel')).length, 2);
  t.ok(results.some(({ symbol, faults }) => symbol === 'rows/rms_norm_kernel' && faults[0] === 'is not there'));
});

const outcome = await checkLibrary(join(addonFolder(findPackageRoot()), 'nds_cuda.so'));
t.test('the library', { skip: 'skipped' in outcome ? outcome.skipped : false }, async (t) => {
  for (const { symbol, faults } of 'results' in outcome ? outcome.results : []) t.same(faults, [], symbol);
});
