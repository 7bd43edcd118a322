"""How fast masks become rows of a Parquet file.

    python benchmarks/parquet.py [--rows 1000000]

The frames hold five masks of a size as in 720p videos.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from vidseg.masks import bbox, encode
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs.parquet import open_table


def main() -> None:
    """Write, and print the rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    random = np.random.default_rng(0)
    rles = []
    for number in range(5):
        rows_of_mask = np.arange(720)[:, None] + random.integers(-8, 8, (1, 1280))
        columns = np.abs(np.arange(1280) - 200 * (number + 1))[None]
        rles.append(encode((columns < 80) & (np.abs(rows_of_mask - 360) < 200)))
    boxes = np.array([bbox(rle) for rle in rles], np.float32)
    scores = np.linspace(0.5, 0.9, 5, dtype=np.float32)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "masks.parquet"
        started, used = time.perf_counter(), time.process_time()
        with open_table(path) as table:
            for index in range(rows // 5):
                masks = FrameMasks(index, index, index / 25, (1, 2, 3, 4, 5), boxes, scores, (None,) * 5, tuple(rles))
                table.add(f"clip{index // 1500}", masks)
        took, used = time.perf_counter() - started, time.process_time() - used
        size = path.stat().st_size / 1e6
    print(f"{rows:,} rows: {took:.1f} s ({used:.1f} s of CPU), {60 * rows / took:,.0f} rows per minute, {size:.0f} MB")


if __name__ == "__main__":
    main()
