#!/bin/bash
# A job on two nodes: sbatch slurm.sh, in a folder that all nodes see, with the script and node_modules.
#SBATCH --job-name=story
#SBATCH --nodes=2
# One launcher per node; it starts the node's ranks.
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
# Change: GPUs per node; without the line ranks compute on processors.
#SBATCH --gpus-per-node=8
#SBATCH --time=01:00:00
# Time for requests in flight before the limit: more than --shutdown-timeout.
#SBATCH --signal=TERM@60
set -euo pipefail

# The nodes' secret, which only the job's user reads.
token="$PWD/.token-$SLURM_JOB_ID"
trap 'rm -f "$token"' EXIT
(umask 077 && head -c 32 /dev/urandom | base64 >"$token")

# Node 0's address and each node's index come from Slurm. The port is the job's own, as two jobs may share a node.
srun node_modules/.bin/ndsrun --nproc-per-node=auto --token-file="$token" --master-port=$((20000 + SLURM_JOB_ID % 10000)) \
  script.ts
