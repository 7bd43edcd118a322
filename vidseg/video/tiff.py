"""The directories of a TIFF file: what its pages are, before any of their pixels are read."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import TiffImagePlugin

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _SAMPLES, _PLANES, _FORMAT, _ORIENTATION = 254, 256, 257, 258, 277, 284, 339, 274
_REDUCED, _TRANSPARENCY = 1, 4  # bits of the kind of a page
_SEPARATE = 2
_READ_BY_OPENCV = {(16, 1), (16, 2), (32, 1), (32, 2), (32, 3), (64, 3)}  # (bits, format of samples)


@dataclass(frozen=True, slots=True)
class Directory:
    """One page: ``number`` counts all directories of the file; ``size`` is (width, height) as stored."""

    number: int
    size: tuple[int, int]
    orientation: int
    bits: int
    samples: int
    kind: int
    """1 whole numbers, 2 signed ones, 3 floating point."""
    separate: bool
    """The planes of the colours follow each other."""

    @property
    def read_by_opencv(self) -> bool:
        """Whether OpenCV reads its values as they are."""
        return (self.bits, self.kind) in _READ_BY_OPENCV and self.samples in (1, 3, 4) and not self.separate


def directories(file: Path) -> list[Directory]:
    """The pages of a TIFF file; smaller copies and transparency masks of a page are no pages.

    Raises:
        OSError, SyntaxError, ValueError, KeyError, TypeError: a damaged file.
    """
    found: list[Directory] = []
    with file.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of cut-off directories: what they lack is an error later
        head = stream.read(8)
        if head[2] == 43 or head[3] == 43:  # BigTIFF
            head += stream.read(8)
        directory = TiffImagePlugin.ImageFileDirectory_v2(head)
        places: set[int] = set()
        while (place := directory.next) and place not in places:
            stream.seek(place)
            directory.load(stream)
            if not directory.get(_SUBFILE, 0) & (_REDUCED | _TRANSPARENCY):
                bits, kinds = directory.get(_BITS, (1,)), directory.get(_FORMAT, (1,))
                found.append(
                    Directory(
                        len(places),
                        (int(directory[_WIDTH]), int(directory[_HEIGHT])),
                        int(directory.get(_ORIENTATION, 1)),
                        max(bits),
                        int(directory.get(_SAMPLES, 1)),
                        max(kinds),
                        directory.get(_PLANES, 1) == _SEPARATE,
                    )
                )
            places.add(place)
    return found
