"""The error tree. Every error a user can cause is a :class:`VidsegError` with one clear line and an exit code."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path


class VidsegError(Exception):
    """Base of all errors vidseg raises on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(VidsegError, ValueError):
    """A wrong option, prompt or configuration value."""

    exit_code = 2


class FolderInUseError(UsageError):
    """Another process, perhaps on another machine, is at the output folder."""


class InputError(VidsegError, ValueError):
    """An input (video, image, annotation) that cannot be read or does not fit."""

    exit_code = 3


class WeightsError(VidsegError, ValueError):
    """Weights that are missing, damaged, unsafe or made for another network."""

    exit_code = 4


class AbsentWeightsError(WeightsError):
    """Weights that would have to be fetched first, which is forbidden."""

    def __init__(self, name: str, message: str):
        super().__init__(message)
        self.brief = f"weights '{name}' are not here: run `vidseg weights fetch {name}` first"
        """The same for a page that others read: without folders of this machine."""


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


def output_error(path: Path, error: OSError) -> OutputError:
    """One clear line for an operating system error while writing ``path``."""
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "no permission",
        errno.EROFS: "the file system is read-only",
    }
    return OutputError(f"{path}: cannot write: {reasons.get(error.errno or 0, error.strerror or error)}")
