#!/usr/bin/env bash
# Checks and measures the CUDA backend on a machine with a GPU and no network: gpu-check.sh FOLDER [STAGE…].
# Stages: build, operators, models, sanitizer, kernels, counters, bench, torch (all by default). Each has a time limit,
# writes its log to FOLDER, and does not stop the next; all together end within nine minutes. A table of rates and one
# of stages come last. Tools that the machine lacks come from .gpu/, which scripts/gpu-pack.sh makes.
# NDS_CUDA=emulated rehearses the same stages without a GPU, with tiny shapes and without limits that matter.
set -uo pipefail
cd "$(dirname "$0")/.."

out=$(mkdir -p "${1:?usage: gpu-check.sh FOLDER [STAGE…]}" && cd "$1" && pwd)
shift
stages=${*:-build operators models sanitizer kernels counters bench torch}
mode=${NDS_CUDA:-nvcc}
variant=$([ "$mode" = nvcc ] && echo nvcc || echo plain)
export NDS_CUDA=$mode NDS_CUDA_ARCHS=${NDS_CUDA_ARCHS:-90}
work=${NDS_GPU_WORK:-/tmp/nds-gpu}
mkdir -p "$work"
if [ "$mode" = nvcc ]; then
  slowness=1 shapes=${NDS_GPU_SHAPES:-qwen3-0.6b qwen3-1.7b qwen3-8b} drafted=${NDS_GPU_DRAFTED:-qwen3-1.7b}
  batches=${NDS_GPU_BATCHES:-1,8,32,256} prefills=${NDS_GPU_PREFILLS:-512,4096} rounds=${NDS_GPU_ROUNDS:-30}
else
  export NDS_BENCH_TOKENS=16
  slowness=8 shapes=${NDS_GPU_SHAPES:-tiny} drafted=${NDS_GPU_DRAFTED:-tiny}
  batches=${NDS_GPU_BATCHES:-1,2} prefills=${NDS_GPU_PREFILLS:-32} rounds=${NDS_GPU_ROUNDS:-1}
fi
deadline=$(($(date +%s) + 540 * slowness))

# unpack FILE.xz: writes its content, with whichever decompressor is installed.
unpack() {
  if command -v xz >/dev/null; then xz --decompress --stdout "$1"; else python3 -c 'import lzma, shutil, sys
shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' "$1"; fi
}
if ! command -v node >/dev/null; then
  if [ ! -x "$work/bin/node" ]; then
    mkdir -p "$work/bin"
    unpack .gpu/node.xz >"$work/bin/node" && chmod +x "$work/bin/node"
  fi
  export PATH=$work/bin:$PATH
fi
[ -d node_modules/zeromq ] || unpack .gpu/node_modules.tar.xz | tar --extract

table=()
# stage NAME SECONDS: runs the function of that name. Its last line of output goes into the table.
stage() {
  local name=$1 limit=$(($2 * slowness)) start status left
  start=$(date +%s)
  left=$((deadline - start))
  if [ $left -lt $limit ]; then limit=$((left > 1 ? left : 1)); fi
  timeout --kill-after=10 "$limit" bash -c "$name" >"$out/$name.log" 2>&1
  status=$?
  table+=("$(printf '%-10s %-8s %4d s   %s' "$name" "$([ $status -eq 0 ] && echo ok || echo "FAIL $status")" $(($(date +%s) - start)) "$(grep -v '^result ' "$out/$name.log" | tail -n 1 | cut -c 1-120)")")
}

tests=build/cuda-tests/$variant
build() {
  node native/build.mjs && node test/cuda/build.mjs "$variant" && node test/cuda/build.mjs "$variant" --bench &&
    node test/cuda/machine-code.mjs
}
operators() { "$tests/test" "$rounds"; }
models() {
  local status=0
  node --import tsx test/cuda/check-models.ts 1 || status=1
  node --import tsx test/cuda/check-models.ts 2 || status=1
  return $status
}
# What compute-sanitizer finds on a device, AddressSanitizer and ThreadSanitizer find on the emulated one.
sanitizer() {
  local status=0 tool
  if [ "$mode" = nvcc ]; then
    for tool in memcheck racecheck; do
      compute-sanitizer --tool "$tool" --error-exitcode 1 "$tests/test" 1 || status=1
    done
  else
    for tool in asan tsan; do
      ASAN_OPTIONS=detect_leaks=0 "$(node test/cuda/build.mjs $tool | tail -n 1)" 1 || status=1
    done
  fi
  return $status
}
kernels() { "$tests/kernel_bench"; }
# What ncu counts in one launch of kernels that are far from a limit.
counters() {
  local status=0 label kernel
  command -v ncu >/dev/null || { echo 'skipped: there is no ncu' && return; }
  while IFS=: read -r kernel label; do
    echo "$label"
    ncu --clock-control none --set detailed -k "regex:$kernel" --launch-skip 3 -c 1 "$tests/kernel_bench" "$label" || status=1
  done <<'CASES'
split_attention:decode   heads 16/8  seqs  32  queries    1  context 4096
split_attention:decode   heads 16/8  seqs 256  queries    1  context  512
prefill_attention:prefill  heads 16/8  seqs   1  queries 4096
tiled:8B gate/up    n  24576 k  4096 chunks  4 m 4096
tiled:0.6B o        n   1024 k  2048 chunks 16 m  256
few:0.6B lm head  n 151936 k  1024 chunks  4 m   32
few:0.6B gate/up  n   6144 k  1024 chunks  4 m    1
CASES
  echo 'see the log'
  return $status
}
# model SHAPE FOLDER [LAYERS]: makes a model of random weights where there is none.
model() {
  [ -f "$work/$2/config.json" ] || { mkdir -p "$work/$2" && python3 test/bench/make_model.py "$1" "$work/$2" "${@:3}"; }
}
ndsrun() { node bin/ndsrun.js --nproc-per-node=1 "$@"; }
bench() {
  local status=0 shape
  for shape in $shapes; do
    model "$shape" "$shape" || status=1
    ndsrun test/bench/gpu.ts "$work/$shape" "$batches" "$prefills" || status=1
    ndsrun test/bench/gpu.ts "$work/$shape" "$batches" "$prefills" deterministic || status=1
  done
  model "$drafted" "$drafted" && model "$drafted" "$drafted-draft" 4 || status=1
  ndsrun test/bench/gpu-speculation.ts "$work/$drafted" "$work/$drafted-draft" || status=1
  return $status
}
torch() {
  python3 -c 'import torch' || { echo 'skipped: python3 has no torch' && return; }
  python3 test/bench/torch_decoder.py "${shapes// /,}" "$batches" "$prefills"
}
export -f build operators models sanitizer kernels counters model ndsrun bench torch
export tests work mode variant shapes drafted batches prefills rounds

for name in $stages; do
  case $name in
    build | bench) stage "$name" 240 ;;
    operators | models | sanitizer | kernels | counters | torch) stage "$name" 120 ;;
    *) echo "Expected build, operators, models, sanitizer, kernels, counters, bench or torch but received $name" >&2
      exit 64 ;;
  esac
done
node test/bench/gpu-table.mjs "$out/bench.log" "$out/torch.log"
printf '%s\n' "${table[@]}"
