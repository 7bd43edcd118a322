"""Ten videos, sound and broken, and what reading them gives; ``python tests/golden_videos.py`` writes the golden file.

The file has one line per frame - name, index, timestamp, bar code - and one for a video that is refused. Look at its
difference before committing it: a change there is a change of what users get.
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

import paths
from media import barcode_frame, barcode_video, read_barcode, write_video
from vidseg.errors import InputError
from vidseg.video import open_source

GOLDEN = paths.FIXTURES / "video" / "golden.txt"
COUNT = 12
INTRA = {"g": "1", "bf": "0"}


def make(folder: Path) -> list[Path]:
    """Write the videos; damage is placed by packets, so that it does not depend on the encoder's version."""
    turned = [np.ascontiguousarray(np.rot90(barcode_frame(n), -1)) for n in range(COUNT)]
    whole = barcode_video(folder / "whole.mp4", COUNT, options=INTRA, container_options={"movflags": "faststart"})
    data, (start, size) = bytearray(whole.read_bytes()), _packet(whole, 7)
    (folder / "truncated.mp4").write_bytes(data[:start])
    data[start : start + size] = bytes(byte ^ 0xFF for byte in data[start : start + size])
    (folder / "flipped.mp4").write_bytes(data)
    whole.unlink()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video\n" * 100)
    barcode_video(folder / "constant.mp4", COUNT)
    times = [0, 1, 4, 6, 13, 14, 17, 19, 26, 27, 30, 32]
    barcode_video(folder / "variable.mkv", COUNT, pts=times, time_base=Fraction(1, 100))
    barcode_video(folder / "b_frames.mp4", COUNT, options={"bf": "3", "g": "12"})
    barcode_video(folder / "transport.ts", COUNT, options={"bf": "2"})
    barcode_video(folder / "edit_list.mp4", COUNT, pts=[n - 3 for n in range(COUNT)], options={"bf": "2"})
    write_video(folder / "rotated.mp4", turned, rotation=90)
    return sorted(folder.iterdir())


def _packet(path: Path, number: int) -> tuple[int, int]:
    """Place and size of a packet in a file."""
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][number]
        assert packet.pos is not None
        return packet.pos, packet.size


def describe(path: Path) -> list[str]:
    """The golden lines of one video."""
    try:
        return [f"{path.name} {f.index} {f.pts} {read_barcode(f.rgb)}" for f in open_source(path)]
    except InputError:
        return [f"{path.name} refused"]


def golden_lines(folder: Path) -> list[str]:
    """The golden lines of all videos."""
    return [line for path in make(folder) for line in describe(path)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text("\n".join(golden_lines(Path(temporary))) + "\n")
