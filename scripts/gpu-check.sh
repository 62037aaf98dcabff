#!/usr/bin/env bash
# Checks and measures the CUDA backend on a machine with a GPU and no network: gpu-check.sh FOLDER [STAGE…].
# Stages: build, operators, models, sanitizer, bench (all by default). Each has a time limit, writes its log to FOLDER,
# and does not stop the next. Tools that the machine lacks come from .gpu/, which scripts/gpu-pack.sh makes.
# NDS_CUDA=emulated runs the same stages without a GPU.
set -uo pipefail
cd "$(dirname "$0")/.."

out=$(mkdir -p "${1:?usage: gpu-check.sh FOLDER [STAGE…]}" && cd "$1" && pwd)
shift
stages=${*:-build operators models sanitizer bench}
mode=${NDS_CUDA:-nvcc}
export NDS_CUDA=$mode NDS_CUDA_ARCHS=${NDS_CUDA_ARCHS:-90}
work=${NDS_GPU_WORK:-/tmp/nds-gpu}
mkdir -p "$work"

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
# stage NAME SECONDS COMMAND…
stage() {
  local name=$1 limit=$2 start status
  [ "$mode" = nvcc ] || limit=$((limit * 8))  # an emulated device takes its time
  shift 2
  start=$(date +%s)
  timeout --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1
  status=$?
  table+=("$(printf '%-10s %-7s %4d s   %s' "$name" "$([ $status -eq 0 ] && echo ok || echo "FAIL $status")" $(($(date +%s) - start)) "$(tail -n 1 "$out/$name.log" | cut -c 1-120)")")
}

build() {
  node native/build.mjs && node test/cuda/build.mjs "$([ "$mode" = nvcc ] && echo nvcc || echo plain)" &&
    node test/cuda/machine-code.mjs
}
tests=build/cuda-tests/$([ "$mode" = nvcc ] && echo nvcc || echo plain)/test
operators() { "$tests" "${NDS_GPU_ROUNDS:-30}"; }
models() {
  local status=0
  node --import tsx test/cuda/check-models.ts 1 || status=1
  node --import tsx test/cuda/check-models.ts 2 || status=1
  return $status
}
sanitizer() {
  local status=0
  for tool in memcheck racecheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 1 "$tests" 1 || status=1
  done
  return $status
}
bench() {
  local model
  for shape in ${NDS_GPU_SHAPES:-qwen3-0.6b qwen3-1.7b qwen3-8b}; do
    model=$work/$shape
    [ -f "$model/config.json" ] || { mkdir -p "$model" && python3 test/bench/make_model.py "$shape" "$model"; }
    node bin/ndsrun.js --nproc-per-node=1 test/bench/gpu.ts "$model" "${NDS_GPU_BATCHES:-1,8,32,256}"
    node bin/ndsrun.js --nproc-per-node=1 test/bench/gpu.ts "$model" "${NDS_GPU_BATCHES:-1,8,32,256}" deterministic
  done
}
export -f build operators models sanitizer bench
export tests work mode

for name in $stages; do
  case $name in
    build) stage build 240 bash -c build ;;
    bench) stage bench 240 bash -c bench ;;
    operators | models | sanitizer) stage "$name" 120 bash -c "$name" ;;
    *) echo "Expected build, operators, models, sanitizer or bench but received $name" >&2 && exit 64 ;;
  esac
done
[ -f "$out/bench.log" ] && grep -E 'loaded in|decode|prefill' "$out/bench.log"
printf '%s\n' "${table[@]}"
