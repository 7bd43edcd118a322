"""How much slower a run gets beside busy processes, with vidseg's OpenMP threads and with those of OpenMP's default.

    python benchmarks/busy_neighbour.py VIDEO [--box x1,y1,x2,y2 ...] [--frames :24] [--rounds 3] [--neighbours 0 1 2]

Every row is the median of paired runs: in each round every case runs once. A neighbour is a loop that does nothing.
`brief` is vidseg's setting, GOMP_SPINCOUNT=3000; `asleep` is OMP_WAIT_POLICY=passive alone; `spinning` is what OpenMP
does by itself, GOMP_SPINCOUNT=300000.
Frames per second leave out loading. Measure on an otherwise quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIMIT = 2.0
"""How many times slower a run may be beside one busy process."""

POLICIES = {
    "brief": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "3000"},
    "asleep": {"OMP_WAIT_POLICY": "passive"},
    "spinning": {"GOMP_SPINCOUNT": "300000"},
}
_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def busy(count: int) -> Iterator[None]:
    """``count`` processes that each want a whole CPU."""
    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in neighbours:
            process.kill()
            process.wait()


def frames_per_second(words: list[str], policy: dict[str, str]) -> float:
    """Of one `vidseg run` in a process of its own, with as many threads as PyTorch chooses."""
    env = {key: value for key, value in os.environ.items() if key not in _SETTINGS} | policy
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        command = [sys.executable, "-m", "vidseg", "run", *words, "--save", "none", "--output", str(output)]
        subprocess.run(command, env=env, check=True, capture_output=True)
        manifest = json.loads((output / "run.json").read_text())
    return float(manifest["frames"] / manifest["wall_seconds"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--box", action="append", default=[])
    parser.add_argument("--frames", default=":24")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--neighbours", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    words = [options.video, "--frames", options.frames, *(word for box in options.box for word in ("--box", box))]
    cases = [(count, name) for count in options.neighbours for name in POLICIES]
    seen: dict[tuple[int, str], list[float]] = {case: [] for case in cases}
    for _ in range(options.rounds):
        for count, name in cases:
            with busy(count):
                fps_now = frames_per_second(words, POLICIES[name])
            seen[count, name].append(fps_now)
            print(f"{count} neighbours, {name}: {fps_now:.2f}", file=sys.stderr, flush=True)
        cases.reverse()
    fps = {case: statistics.median(values) for case, values in seen.items()}
    print(f"{os.cpu_count()} CPUs; frames per second (all rounds); times slower than alone; that / limit of {LIMIT:g}")
    for (count, name), values in seen.items():
        slower = fps[options.neighbours[0], name] / fps[count, name]
        rounds = " ".join(f"{value:.2f}" for value in values)
        share = f"{slower / LIMIT:.2f}" if count == 1 else "-"
        print(f"{count} neighbours, {name:<8}  {fps[count, name]:6.2f} ({rounds})  {slower:5.2f}x  {share}")


if __name__ == "__main__":
    main()
