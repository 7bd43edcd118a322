"""Files that somebody else wrote: text in any Unicode encoding, and numbers in any spelling."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from vidseg.errors import InputError
from vidseg.storage_cache import here

_WHOLE = re.compile(r"([+-]?\d{1,19})(\.0*)?", re.ASCII)


def read_text(path: str | PurePath, *, errors: str = "strict") -> str:
    r"""The text of a file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark; its line ends become ``\n``.

    Args:
        path: the file.
        errors: as of ``bytes.decode``; ``replace`` where odd letters (in comments, say) do no harm.

    Raises:
        InputError: no such file, not readable, or in another encoding.
    """
    return decode_text(read_bytes(path), str(path), errors=errors)


def read_bytes(path: str | PurePath) -> bytes:
    """The content of a file, or of what a URL names.

    Raises:
        InputError: no such file, or not readable.
    """
    try:
        return here(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: file not found") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def decode_text(data: bytes, where: str, *, errors: str = "strict") -> str:
    """:func:`read_text` of bytes; ``where`` names them in errors."""
    encoding = json.detect_encoding(data)  # by its mark, or by where the zeros are among the first four bytes
    try:
        text = data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise InputError(f"{where}, line {line}: not {encoding} text (byte 0x{byte:02x}); save it as UTF-8") from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | PurePath) -> Iterator[str]:
    r"""The lines of a file as :func:`read_text` reads it, each with its ``\n``; no more than one is in memory.

    Raises:
        InputError: as :func:`read_text`.
    """
    number = 0
    try:
        file_here = here(path)
        with file_here.open("rb") as file:
            encoding = json.detect_encoding(file.read(4))
        with file_here.open(encoding=encoding) as lines:
            for number, line in enumerate(lines, 1):
                yield line.removeprefix("\ufeff") if number == 1 else line
    except FileNotFoundError:
        raise InputError(f"{path}: file not found") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"{path}, behind line {number}: not {encoding} text (byte 0x{byte:02x}); save it as UTF-8"
        ) from None


def read_json(path: str | PurePath) -> Any:
    """The content of a json file, in any encoding of :func:`read_text`.

    Raises:
        InputError: as :func:`read_text`, or not json.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number with more digits than Python reads
        raise InputError(f"{path}: not json ({error})") from None


def whole(value: object) -> int | None:
    """7 for 7, 7.0 (an id that went through a table of floats) and "7"; None for anything else."""
    if isinstance(value, str):
        match = _WHOLE.fullmatch(value.strip())
        return int(match[1]) if match else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(value: object) -> float | None:
    """A finite number, also one that is written as text; None for anything else."""
    if not isinstance(value, (int, float, str)) or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
