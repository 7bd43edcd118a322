#!/usr/bin/env bash
# Everything that only a GPU can show, in at most six minutes, ordered by worth; results as files: bash benchmarks/gpu.sh
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-build/gpu}
more=(${GPU_ARGUMENTS:-})  # --device cpu --tiny: to try this script
mkdir -p "$out"
source benchmarks/gpu_packages.sh

{ nvidia-smi || echo "no nvidia-smi"; "$python" -c 'import torch; print(torch.__version__, torch.version.cuda)'; nproc; } \
    > "$out/machine.txt" 2>&1
failed=0
step() {  # SECONDS NAME COMMAND...
    local limit=$1 name=$2
    shift 2
    timeout --signal INT --kill-after 5 "$limit" "$@" > "$out/$name.log" 2>&1
    local code=$?
    [ $code = 0 ] || failed=1
    echo "$name: exit code $code$([ $code != 124 ] || echo " (longer than $limit s)"); $(tail -n 1 "$out/$name.log" | cut -c1-300)"
}
check() { step "$1" "$2" "$python" benchmarks/gpu.py "$2" --out "$out" "${more[@]}"; }

check 15 matrix
step 50 tests "$python" -m pytest -q -m cuda tests -p no:cacheprovider
check 55 image-models
check 45 trackers
check 25 resume
check 55 runs
check 45 encoders
check 45 compiled
check 25 memory
exit $failed
