"""Six hundred mutated media files, always the same: only vidseg's own errors, no hang, no crash, memory limited."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from PIL import Image

import paths
from media import barcode_frame, barcode_video

COUNT = 600
KINDS = {
    "h264.mp4": {"options": {"g": "4", "bf": "2"}},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h264.ts": {"options": {"g": "4"}},
    "h264.mkv": {"options": {"g": "4"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime"}},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "picture.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "flash.flv": {"codec": "flv1"},
}


def test_mutated_files_raise_nothing_else(tmp_path: Path) -> None:
    for name, keywords in KINDS.items():
        barcode_video(tmp_path / name, 8, **keywords)
    for name in ("still.png", "still.jpg", "still.webp", "still.tif"):
        Image.fromarray(barcode_frame(5)).save(tmp_path / name)
    child = subprocess.run(
        [sys.executable, str(paths.HELPERS / "fuzz_media.py"), str(tmp_path), str(COUNT)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    lines = child.stdout.splitlines()
    assert child.returncode == 0, f"at {lines[-1] if lines else 'the start'}: {child.stderr[-2000:]}"
    assert len(lines) == COUNT
    results: Counter[str] = Counter()
    for line in lines:
        _, _, seconds, result = line.split(" ", 3)
        assert result != "TimeLimitError" and float(seconds) < 10, line
        results["read" if result.endswith("frames") else result] += 1
    assert set(results) == {"read", "InputError"}
    assert min(results.values()) > COUNT // 10  # neither is every file refused, nor none
