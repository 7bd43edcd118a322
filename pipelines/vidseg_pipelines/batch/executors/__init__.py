"""Where workers run. An engine starts workers; everything else is in the records that workers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vidseg_pipelines.batch.worker import WorkerSpec


class Handle(Protocol):
    """A worker that was started."""

    def alive(self) -> bool:
        """True while it waits to begin or works."""
        ...

    def stop(self) -> None:
        """Ask it to stop in an orderly way."""
        ...

    def join(self) -> None:
        """Return when it has stopped."""
        ...


class Engine(Protocol):
    """Starts workers."""

    def start(self, specs: Sequence[WorkerSpec], first: int) -> Sequence[Handle]:
        """Start a worker per spec; ``first`` is the number of the first one."""
        ...


def make_engine(name: str, folder: Path, options: Mapping[str, Any]) -> Engine:
    """The engine ``local``, ``ray`` or ``slurm``; ``folder`` is for its files.

    Raises:
        UsageError: an extra is not installed (named), or an option that the engine does not have.
    """
    return _ENGINES[name](folder, dict(options))


def _local(folder: Path, options: dict[str, Any]) -> Engine:
    from vidseg_pipelines.batch.executors.local import LocalEngine

    return LocalEngine(options)


def _ray(folder: Path, options: dict[str, Any]) -> Engine:
    from vidseg_pipelines.batch.executors.ray import RayEngine

    return RayEngine(options)


def _slurm(folder: Path, options: dict[str, Any]) -> Engine:
    from vidseg_pipelines.batch.executors.slurm import SlurmEngine

    return SlurmEngine(folder, options)


_ENGINES: dict[str, Callable[[Path, dict[str, Any]], Engine]] = {"local": _local, "ray": _ray, "slurm": _slurm}
