// Unrolls the loop that follows, fully or n times: NDS_UNROLL() or NDS_UNROLL(n).
#pragma once

#if defined(__CUDACC__)
#define NDS_PRAGMA(text) _Pragma(#text)
#define NDS_UNROLL(...) NDS_PRAGMA(unroll __VA_ARGS__)
#else
#define NDS_UNROLL(...)
#endif
