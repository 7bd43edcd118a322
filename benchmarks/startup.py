"""CPU time of commands that compute nothing, against that of importing numpy in the same run.

python benchmarks/startup.py
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

LIMIT = 6.0
"""Times `python -c "import numpy"`."""
CALLS = (
    "--version",
    "run --help",
    "run video.mp4 --save davs",
    "run video.mp4 --no-such-flag",
    "image --help",
    "batch --help",
    "export --help",
    "train hq --help",
    "weights list",
)
TIMES = 5


def cpu_seconds(arguments: list[str]) -> float:
    """Median CPU time of a Python process with these arguments."""
    seconds = []
    for _ in range(TIMES):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(seconds)


def main() -> int:
    """Print a row per command; 1 if one is over the limit."""
    unit = cpu_seconds(["-c", "import numpy"])
    print(f"import numpy: {unit:.3f} CPU s; limit: {LIMIT:g} times that, {LIMIT * unit:.2f} s\n")
    print(f"{'command':32}  CPU s   ratio  measured / limit")
    worst = 0.0
    for call in CALLS:
        seconds = cpu_seconds(["-m", "vidseg", *call.split()])
        worst = max(worst, seconds / unit)
        print(f"vidseg {call:25}  {seconds:5.3f}  {seconds / unit:5.1f}   {seconds / unit / LIMIT:5.2f}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
