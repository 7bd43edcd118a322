"""``vidseg doctor``: what a bug report needs, and whether the installation can work."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from vidseg import __version__
from vidseg.weights.catalog import CATALOG, find_entry, find_local


@dataclass(frozen=True)
class DoctorCommand:
    """Check the installation: versions, devices, encoders, extras, weights, disk, memory, and a run of two frames.

    Exit code 4: embedded weights are missing; 1: something else failed. A line marked `note` limits what can be done.

    Examples:
      vidseg doctor
      vidseg doctor --model sam-hq-vit-h --json
    """

    model: str = "compact"
    """The image model whose need of memory is compared with what is free: a name from `vidseg weights list`."""
    folder: Path = Path("runs")
    """Folder for results, whose disk is looked at."""
    no_run: bool = False
    """Leave out the run of two frames."""
    json: bool = False
    """Print the checks as one JSON object."""

    def run(self) -> int:
        """Print the checks; returns the exit code."""
        entry = find_entry(self.model)

        from vidseg_pipelines.commands.doctor_checks import checks

        rows = list(checks(entry, self.folder, run=not self.no_run))
        failed = [row.name for row in rows if row.state == "failed"]
        if self.json:
            result = {"version": __version__, "status": "failed" if failed else "ok", "checks": [*map(asdict, rows)]}
            sys.stdout.write(json.dumps(result) + "\n")
        else:
            from rich.console import Console
            from rich.table import Table

            table = Table(title=f"vidseg {__version__}", show_header=False, title_justify="left")
            for row in rows:
                table.add_row(row.name, row.state, row.value)
            Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120, markup=False).print(table)
        missing = not all(find_local(name) for name, known in CATALOG.items() if known.embedded)
        return 4 if missing else int(bool(failed))
