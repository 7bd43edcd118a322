"""``vidseg export``: other formats from a finished or interrupted run."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from vidseg.address import parse_address
from vidseg.errors import InputError, PartialError, UsageError, did_you_mean
from vidseg.outputs import EXPORTERS
from vidseg.outputs.files import make_folder
from vidseg.outputs.journal import read_journal
from vidseg.outputs.overlay import OverlaySink
from vidseg.video import open_source

_OVERLAY = "overlay"


@dataclass(frozen=True)
class ExportCommand:
    """Make other formats from the journal of a run; the overlay needs the video too.

    Examples:
      vidseg export runs/dog --to coco,labelme
      vidseg export runs/dog --to overlay --output dog-overlay
    """

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Output folder of a run (with masks.jsonl)."""
    to: str
    """Comma-separated: ytvis, coco, mots, davis, labelme, report, overlay."""
    output: Path | None = None
    """Folder to write to (default: RUN_DIR)."""
    input: str | None = None
    """The video, for the overlay (default: the one named in run.json)."""

    def run(self) -> int:
        """Write every format; 0 when done, 5 when one cannot hold the run and is left out.

        Raises:
            UsageError: unknown format.
            InputError: no run there, or the video is gone.
            OutputError: a file cannot be written.
        """
        names = [name.strip() for name in self.to.split(",") if name.strip()]
        allowed = [*EXPORTERS, _OVERLAY]
        for name in names:
            if name not in allowed:
                raise UsageError(f"--to {name}{did_you_mean(name, allowed)}: allowed are {', '.join(allowed)}")
        journal = self.run_dir / "masks.jsonl"
        if not journal.is_file():
            raise InputError(f"{self.run_dir}: no masks.jsonl in it; name the output folder of a run")
        folder = make_folder(self.output or self.run_dir)
        left_out = 0
        for name in names:
            try:
                if name == _OVERLAY:
                    export_overlay(journal, self.input or _input_of(self.run_dir), folder)
                else:
                    EXPORTERS[name](journal, folder)
            except PartialError as error:  # the other formats can
                left_out = error.exit_code
                sys.stderr.write(f"warning: {error}\n")
        return left_out


def export_overlay(journal: Path, video: str, folder: Path) -> Path:
    """Write ``FOLDER/overlay.mp4`` from a journal and its video.

    Raises:
        InputError: the video cannot be read or is not the journal's.
        OutputError: the file cannot be written.
    """
    path = folder / "overlay.mp4"
    results = read_journal(journal)
    masks = next(results, None)
    with contextlib.closing(open_source(video)) as source, contextlib.closing(OverlaySink(path, source.info)) as sink:
        for frame in source:
            if masks is None:
                break
            if frame.index == masks.frame_index:
                if any((rle.height, rle.width) != frame.size for rle in masks.rles):
                    raise InputError(f"{video}: its frames are not of the size of the masks in {journal}")
                sink.write(frame, masks)
                masks = next(results, None)
    if masks is not None:
        raise InputError(f"{video}: has no frame {masks.frame_index}, which {journal} names; is it another video?")
    return path


def _input_of(run_dir: Path) -> str:
    path = run_dir / "run.json"
    try:
        manifest: Mapping[str, Any] = json.loads(path.read_bytes())
        video = str(manifest["input"]["path"])
        if parse_address(video).kind != "file":
            raise InputError(f"{video} was no file: give a recording of it with --input")
        return video
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: does not name the video; give it with --input") from error
