"""What a run gave, for its caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from vidseg.types import Gap
from vidseg_pipelines.run_folder import RunFolder


@dataclass(frozen=True)
class RunSummary:
    """What a run gave.

    ``status`` is "done", or "partial" when something of the input came to nothing (see ``warnings``); ``notes`` name no
    fault.
    """

    folder: PurePath
    """A :class:`~pathlib.Path`, or the URL of object storage as :class:`~vidseg.storage.ObjectPath`."""
    status: str
    frames: int
    objects: tuple[int, ...]
    fps: float
    warnings: tuple[str, ...]
    outputs: tuple[PurePath, ...]
    gap: Gap
    """All that a live source lost, added up."""
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: Mapping[str, Any], folder: RunFolder) -> RunSummary:
        """The summary of the run that ``manifest`` describes."""
        return cls(
            folder.path,
            manifest["status"],
            manifest["frames"],
            tuple(manifest["objects"]),
            manifest["fps"],
            tuple(manifest["warnings"]),
            tuple(folder.written),
            Gap(**manifest.get("gap", {})),
            tuple(manifest.get("notes", ())),
        )
