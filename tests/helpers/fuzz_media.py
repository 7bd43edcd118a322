"""The child of ``test_video_fuzz.py``: reads mutated media files under limits and prints one line for each.

``python fuzz_media.py FOLDER COUNT``: the files of FOLDER are mutated in turn, with the number as the seed.
"""

from __future__ import annotations

import resource
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from media import read_barcode
from vidseg.errors import VidsegError
from vidseg.video import open_source

MEMORY = 2 << 30
CPU_S = 120
LIMIT_S = 10.0


def mutate(original: bytes, seed: int) -> bytes:
    """Between one and six changes: bytes replaced, removed, added, doubled, set to extremes, or the end cut off."""
    rng = np.random.default_rng(seed)
    data = bytearray(original)
    for _ in range(rng.integers(1, 7)):
        if not data:
            break
        # Half of the changes hit the beginning, where sizes and counts stand.
        end = len(data) if rng.integers(2) else min(len(data), 400)
        place, length = int(rng.integers(end)), int(rng.integers(1, 60))
        match rng.integers(6):
            case 0:
                data[place] = int(rng.integers(256))
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = rng.integers(0, 256, length, np.uint8).tobytes()
            case 3:
                data[place:place] = data[place : place + 20 * length]
            case 4:
                extreme = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0")[rng.integers(4)]
                data[place : place + 4] = extreme
            case 5 if len(data) > 600:
                del data[-int(rng.integers(1, len(data) // 2)) :]
    return bytes(data)


def read(path: Path) -> str:
    """What became of a file: the number of frames, or the name of vidseg's error."""
    try:
        source = open_source(path, limit_s=LIMIT_S, pixel_limit=1 << 20)
        frames = list(source)
    except VidsegError as error:
        assert path.name in str(error) and "\n" not in str(error), error
        return type(error).__name__
    assert all(a.index < b.index and a.pts < b.pts for a, b in pairwise(frames))
    for frame in frames[:2]:
        read_barcode(frame.rgb)
    return f"{len(frames)} frames"


def main(folder: Path, count: int) -> None:
    """Print ``NUMBER NAME SECONDS RESULT`` for every file."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    originals = sorted(path for path in folder.iterdir() if path.is_file())
    (folder / "mutated").mkdir()
    for number in range(count):
        original = originals[number % len(originals)]
        path = folder / "mutated" / original.name
        path.write_bytes(mutate(original.read_bytes(), number))
        print(number, original.name, flush=True, end=" ")
        begun = time.monotonic()
        result = read(path)
        print(f"{time.monotonic() - begun:.3f} {result}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
