"""A look at the data before the first step: what is wrong with a file is found now and not hours later.

Of every file the header and the end are read, of some masks the values; nothing is decoded that looks whole.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vidseg.datasets.pairs import Item, check_size, load
from vidseg.datasets.sa1b import read_mask
from vidseg.errors import InputError
from vidseg.masks.files import read_mask_values
from vidseg.names import printable
from vidseg.video.images import image_size, read_image

_SAMPLE = 100
"""Masks per source whose values are looked at."""

_TAIL = 64


def check_items(items: Sequence[Item]) -> None:
    """Refuse items that cannot be trained on.

    Raises:
        InputError: a file is empty, damaged or cut off, a mask has not the size of its image (all headers and ends are
            looked at), or no mask of a source has a foreground pixel.
    """
    _refuse(items, _headers)
    by_source: dict[str, list[Path]] = {}
    for item in items:
        by_source.setdefault(item.source, []).extend(path for path in item.masks if path.suffix != ".json")
    for source, masks in by_source.items():
        if masks:
            _check_foreground(source, masks)


def check_readable(items: Sequence[Item]) -> None:
    """Refuse items that cannot be decoded; for the few that are measured on, which are all read again and again.

    Raises:
        InputError: as :func:`check_items`, from the pixels.
    """
    _refuse(items, _decoded)


def describe_items(items: Iterable[Item]) -> str:
    """Number and checksum of the images, of names and sizes of all files: equal for the same data in any place."""
    count, checksum = 0, 0
    for item in items:
        files = ((path.name, path.stat().st_size) for path in (item.image, *item.masks))
        checksum = zlib.crc32(repr((item.name, item.source, list(files))).encode(), checksum)
        count += 1
    return f"{count} images ({checksum:08x})"


def _refuse(items: Sequence[Item], problem: Callable[[Item], str | None]) -> None:
    with ThreadPoolExecutor() as pool:
        problems = [text for text in pool.map(problem, items) if text]
    if problems:
        more = f" (and {len(problems) - 1} more of {len(items)} images)" if len(problems) > 1 else ""
        raise InputError(problems[0] + more)


def _headers(item: Item) -> str | None:
    try:
        size = image_size(item.image)
        if not _ends_well(item.image):
            read_image(item.image)
        for mask in item.masks:
            if mask.suffix == ".json":
                rle = read_mask(mask)
                check_size(mask, (rle.width, rle.height), item.image, size)
                continue
            check_size(mask, image_size(mask), item.image, size)
            if not _ends_well(mask):
                read_mask_values(mask)
    except InputError as error:
        return str(error)
    return None


def _decoded(item: Item) -> str | None:
    try:
        load(item)
    except InputError as error:
        return str(error)
    return None


def _ends_well(path: Path) -> bool:
    """Whether a JPEG, PNG or WebP file ends as such files do. False: it has to be decoded to know."""
    with path.open("rb") as file:
        head = file.read(12)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    if head[:4] == b"RIFF":
        return int.from_bytes(head[4:8], "little") + 8 <= size
    if head[:2] == b"\xff\xd8":
        return tail.rstrip(b"\0").endswith(b"\xff\xd9")
    return head[:4] == b"\x89PNG" and tail[-8:-4] == b"IEND"


def _check_foreground(source: str, masks: Sequence[Path]) -> None:
    step = max(1, len(masks) // _SAMPLE)
    looked_at = masks[::step]
    empty = [path for path in looked_at if not read_mask_values(path).foreground().any()]
    rest = (path for path in masks if path not in empty)
    if len(empty) == len(looked_at) and not any(read_mask_values(path).foreground().any() for path in rest):
        raise InputError(f"{masks[0]}: no foreground, nor in any other of the {len(masks)} masks of '{source}'")
    if empty:
        text = f"{len(empty)} of {len(looked_at)} masks of '{source}' that were looked at are empty: {empty[0]}"
        logging.getLogger("vidseg").warning("%s", printable(text))
