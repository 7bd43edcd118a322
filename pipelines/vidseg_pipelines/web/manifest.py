"""``run.json`` of a run that was made or changed on the page or by the server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from vidseg.config import RunConfig
from vidseg.types import VideoInfo
from vidseg_pipelines.manifest import new_manifest
from vidseg_pipelines.run_folder import RunFolder
from vidseg_pipelines.web.results import Results


def keep_manifest(folder: Path, config: RunConfig, info: VideoInfo, results: Results, warnings: Sequence[str]) -> None:
    """Write what the folder holds now. What an earlier run said of itself stays; it cannot be resumed any more.

    Raises:
        OutputError: it cannot be written.
    """
    run, manifest = RunFolder(folder), None
    with contextlib.suppress(OSError, ValueError, RecursionError):
        manifest = json.loads(run.manifest.read_bytes())
    if not isinstance(manifest, dict):
        manifest = new_manifest(config, info)
    facts = results.facts
    manifest = {"wall_seconds": 0.0, "fps": 0.0, "seconds": {}, "notes": [], "warnings": list(warnings)} | manifest
    manifest |= {
        "status": "done",
        "edited": True,
        "frames": len(facts),
        "objects": sorted({i for row in facts.values() for i in row}),
    }
    run.remove_snapshot()
    run.write_manifest(manifest)
