// What the instruction set of this file offers; NDS_ISA is its number in flags.txt.
#pragma once

#ifndef NDS_ISA
#error "isa_traits.h is for files that are compiled once per instruction set (*.isa.cc)"
#endif

#define NDS_AVX2 (NDS_ISA == 1 || NDS_ISA == 7)
#define NDS_AVX512 (NDS_ISA == 2 || NDS_ISA == 3 || NDS_ISA == 6 || NDS_ISA == 8)
#define NDS_AVX512_BF16 (NDS_ISA == 3 || NDS_ISA == 8)
#define NDS_AMX (NDS_ISA == 8)
#define NDS_VNNI (NDS_ISA == 3 || NDS_ISA == 6 || NDS_ISA == 7 || NDS_ISA == 8)
#define NDS_NEON (NDS_ISA == 4 || NDS_ISA == 5 || NDS_ISA == 9)
#define NDS_NEON_DOT (NDS_ISA == 5 || NDS_ISA == 9)
#define NDS_NEON_BF16 (NDS_ISA == 5)
#define NDS_NEON_I8MM (NDS_ISA == 5)  // see has_bf16_and_i8mm of dispatch.cc
#if NDS_NEON_DOT && !defined(__clang__)
// g++ has these intrinsics in functions for this architecture only, which -mcpu cannot name.
#if NDS_NEON_BF16
#pragma GCC target("arch=armv8.2-a+dotprod+bf16+i8mm")
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#endif
// Products of bf16 pairs in hardware, which round otherwise than two fp32 multiply-adds.
#define NDS_BF16_DOT (NDS_AVX512_BF16 || NDS_NEON_BF16)
