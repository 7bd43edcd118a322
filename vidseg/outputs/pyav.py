"""Formats that are videos need PyAV; all others do without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vidseg.errors import OutputError


@contextmanager
def needs_pyav(name: str) -> Iterator[None]:
    """Around the imports of a format.

    Raises:
        OutputError: PyAV is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise OutputError(f"--save {name}: writing videos needs PyAV (pip install av)") from error
