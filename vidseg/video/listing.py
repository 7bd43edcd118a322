"""Which files of a folder are the frames of a video, and in which order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from vidseg.errors import InputError
from vidseg.files import IMAGE_SUFFIXES, data_files, natural_key

OTHER_SUFFIXES = (
    *(".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".gif", ".apng", ".tga", ".exr", ".hdr", ".psd"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw"),
)
"""Endings of images that are not read (but may hold one that is), in lower case."""

_HEADS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"GIF8")
_KINDS = (b"WEBP", b"heic", b"heix", b"mif1", b"msf1", b"avif")  # at byte 8 of RIFF and of ISO files


def list_images(folder: Path) -> list[Path]:
    """The frames in a folder, see :func:`frames_among`.

    Raises:
        InputError: no images, two for one frame, or the folder cannot be read.
    """
    try:
        return frames_among(data_files(folder), folder)
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read ({error.strerror})") from error


def frames_among(files: Iterable[Path], where: str | Path) -> list[Path]:
    """The images among files in natural order, those that cannot be read too: each has its place in the video.

    Images are known by the endings of their names, or by their content. Of two with the same stem, one of a kind that
    is read and one of another (IMG_1.JPG and IMG_1.CR2), the first is the frame.

    Raises:
        InputError: no images, or two for one frame.
        OSError: a file cannot be read.
    """
    frames: dict[str, list[Path]] = {}
    for file in files:
        if is_picture(file):
            frames.setdefault(file.stem, []).append(file)
    if not frames:
        what = "a folder without images" if Path(where).is_dir() else "no image has such a name"
        raise InputError(f"{where}: {what} (looked for {', '.join(IMAGE_SUFFIXES)})")
    for stem, same in frames.items():
        frames[stem] = [file for file in same if file.suffix.lower() not in OTHER_SUFFIXES] or same[:1]
    double = [same for same in frames.values() if len(same) > 1]
    if double:
        first, second = double[0][:2]
        raise InputError(
            f"{where}: {len(double)} frames have two images each, such as {first.name} and {second.name}: name those "
            f"that are meant with a pattern ('{first.parent / '*'}{first.suffix}'), or give them a folder of their own"
        )
    return sorted((same[0] for same in frames.values()), key=lambda file: natural_key(str(file)))


def odd_names(files: Sequence[Path]) -> str | None:
    """A line on images whose names do not follow the pattern of the others; None where all do."""
    patterns = {file: re.sub(r"\d+", "1", file.stem.casefold()) for file in files}
    usual, count = Counter(patterns.values()).most_common(1)[0]
    odd = [file.name for file in files if patterns[file] != usual]
    if not odd:
        return None
    example = next(file.name for file in files if patterns[file] == usual)
    shown = ", ".join(odd[:3] + ["..."] * (len(odd) > 3))
    return f"names of {len(odd)} images differ from the other {count} ({example}): {shown}; all are taken as frames"


def is_picture(file: Path) -> bool:
    """By the ending of its name or, where that says nothing, by its first bytes.

    Raises:
        OSError: it cannot be read.
    """
    if file.suffix.lower() in (*IMAGE_SUFFIXES, *OTHER_SUFFIXES):
        return True
    with file.open("rb") as stream:
        head = stream.read(12)
    return head.startswith(_HEADS) or (head[8:] in _KINDS and (head[:4] == b"RIFF" or head[4:8] == b"ftyp"))
