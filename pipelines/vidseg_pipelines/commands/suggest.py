"""``vidseg suggest``: the frames of a run whose correction would help most."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from vidseg.errors import InputError, UsageError
from vidseg.object_texts import parse_removals
from vidseg.outputs.layout import JOURNAL, MANIFEST


@dataclass(frozen=True)
class SuggestCommand:
    """Name the frames of a run whose correction would help most, and why.

    The frames lie apart in time; the one that helps most comes first. Correct them with vidseg run --continue, or on
    the page of vidseg ui. A run that is still going on is read as far as it is.

    Examples:
      vidseg suggest runs/dog
      vidseg suggest runs/dog --frames 10 --json
    """

    run_dir: Annotated[Path, Positional, arg(metavar="RUN_DIR")]
    """Output folder of a run."""
    frames: int = 5
    """How many frames to name; fewer are named where no more lie apart."""
    json: bool = False
    """Print a list of objects: frame, time_s, id, label, trust (0..1) and reason."""

    def run(self) -> int:
        """Read and print."""
        from vidseg.masks.suggestions import Suggestions  # slow to import
        from vidseg.outputs.journal import read_journal

        journal, suggestions = self.run_dir / JOURNAL, Suggestions(_removals_of(self.run_dir))
        if not journal.is_file():
            raise InputError(f"{self.run_dir}: contains no {JOURNAL}; give the output folder of a run")
        suggestions.best(self.frames)  # refuses a wrong number before a long journal is read
        for masks in read_journal(journal):
            suggestions.add(masks)
        found = suggestions.best(self.frames)
        lines = "\n".join(map(str, found)) or "no objects: there is nothing to correct"
        sys.stdout.write((json.dumps([one.to_dict() for one in found], indent=1) if self.json else lines) + "\n")
        return 0


def _removals_of(run_dir: Path) -> dict[int, int]:
    """What ``--remove`` said in a run, as far as its manifest can be read."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, UsageError):
        return parse_removals(json.loads((run_dir / MANIFEST).read_bytes())["config"]["remove"])
    return {}
