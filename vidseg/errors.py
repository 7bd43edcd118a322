"""The error tree. Every error a user can cause is a :class:`VidsegError` with one clear line and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VidsegError(Exception):
    """Base of all errors vidseg raises on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(VidsegError, ValueError):
    """A wrong option, prompt or configuration value."""

    exit_code = 2


class InputError(VidsegError, ValueError):
    """An input (video, image, annotation) that cannot be read or does not fit."""

    exit_code = 3


class WeightsError(VidsegError, ValueError):
    """Weights that are missing, damaged, unsafe or made for another network."""

    exit_code = 4


class PartialError(VidsegError, RuntimeError):
    """The work is done in part; what was computed is kept (a damaged video, failed jobs)."""

    exit_code = 5


class OutputError(VidsegError, OSError):
    """The output folder cannot be written (exists already, disk full, no permission)."""

    exit_code = 1


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` when a close name exists in ``allowed``, else an empty string."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
