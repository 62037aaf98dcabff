#!/usr/bin/env bash
# Packs into .gpu/ what a bare GPU machine lacks for scripts/gpu-check.sh: Node, and the packages that run without a
# build (one platform, no development tools). Usage: gpu-pack.sh. Fails if that and the repository exceed 60 MiB.
set -euo pipefail
cd "$(dirname "$0")/.."

out=.gpu
limit_mib=60
mkdir -p "$out"
grep -qx '/.gpu/' .git/info/exclude 2>/dev/null || echo '/.gpu/' >>.git/info/exclude

node=$(node -p process.execPath)
if [ ! -f "$out/node.xz" ] || [ "$node" -nt "$out/node.xz" ]; then
  cp "$node" "$out/node"
  strip "$out/node"
  xz --force --threads=0 "$out/node"
fi

# Production packages of this platform, with only the prebuilt binary that this Node loads.
packages=$(npm ls --omit=dev --all --parseable 2>/dev/null | grep '/node_modules/' | sed "s|^$PWD/||" | sort -u)
platform=$(node -p 'process.platform')
arch=$(node -p 'process.arch')
other_prebuilds=$(find node_modules/zeromq/build -name '*.node' ! -path "*/$platform/$arch/*glibc*")
# shellcheck disable=SC2086
tar --create --xz --file="$out/node_modules.tar.xz" \
  --exclude-from=<(printf '%s\n' $other_prebuilds) --exclude='*.map' --exclude='*.md' --exclude='*.d.ts' --exclude='*.d.cts' \
  --exclude='node_modules/zeromq/src' --exclude='node_modules/.cache' $packages

repo=$(git ls-files -z --cached --others --exclude-standard | xargs -0 du --bytes --total | tail -n 1 | cut -f 1)
carried=$(du --bytes --summarize "$out" | cut -f 1)
total_mib=$(((repo + carried) / 1048576))
echo "repository $((repo / 1048576)) MiB, carried $((carried / 1048576)) MiB, together $total_mib of $limit_mib MiB"
[ "$total_mib" -le "$limit_mib" ]
