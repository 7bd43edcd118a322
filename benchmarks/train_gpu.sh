#!/usr/bin/env bash
# Train the embedded models on one GPU in nine minutes: bash benchmarks/train_gpu.sh
# Needs build/training-data.zip (`make training-data`); what comes out is in $OUT, or build/trained.
set -euo pipefail
cd "$(dirname "$0")/.."
source benchmarks/gpu_packages.sh
exec "$python" benchmarks/train_gpu.py build/training-data.zip --out "${OUT:-build/trained}" ${GPU_ARGUMENTS:-}
