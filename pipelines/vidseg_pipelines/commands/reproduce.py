"""``vidseg reproduce``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from vidseg.errors import UsageError
from vidseg.evaluation.tables import text_pairs, text_table
from vidseg_pipelines.reproduce.config import ReproduceConfig

if TYPE_CHECKING:
    from vidseg_pipelines.reproduce.run import ReproduceResult
    from vidseg_pipelines.run import Loaders


@dataclass(frozen=True)
class ReproduceCommand(ReproduceConfig):
    """Run a whole benchmark, from the official data folder to the score; or print a table of the HQ-SAM paper next to
    ours.

    Benchmarks: davis2017, sav-val, sav-test, mose, lvos-v1, lvos-v2, vost, burst, ytvis2019, hq-ytvis, coco, uvo, lvis,
    sginw, hq44k-val (DIS, COIFT, HRSOD, ThinObject), big.
    Results already in the output folder are reused. Exit code 5: a part of a table could not be run.

    Examples:
      vidseg reproduce hq44k-val --data DATA --model sam-hq-vit-l
      vidseg reproduce hq44k-val --data DATA --prompt noisy-boxes --noise 0.2 --limit 20
      vidseg reproduce coco --data DATA --model sam-hq-vit-l --boxes detections.json
      vidseg reproduce davis2017 --data DATA --model sam-hq-vit-l --tracker xmem --tracker-option weights=xmem
      vidseg reproduce sav-val --data DATA --tracker sam2 --model sam2.1-hiera-tiny --refine none
      vidseg reproduce --table table-10 --data DATA
      vidseg reproduce --table figure-4 --data DATA --plot figure-4.png
    """

    table: str = ""
    """A table of the paper (table-2, table-3, table-5 to -8, -10 to -13, -16, figure-4, figure-5) or a YAML file;
    --model, --tracker and --limit then override its rows."""
    plot: Path | None = None
    """With --table figure-4, figure-5, table-6 or table-13: plot our curves to this PNG file."""
    json: bool = False
    """Print the scores and the protocol as JSON instead of a table."""

    def run(self) -> int:
        """Run and report; returns the exit code."""
        if self.table and self.benchmark:
            raise UsageError("a benchmark and --table cannot be combined: table rows name their own")
        if self.plot and not self.table:
            raise UsageError("--plot goes with --table: figure-4, figure-5, table-6 or table-13")
        if not self.table and not self.benchmark:
            raise UsageError("no benchmark given: vidseg reproduce NAME --data ROOT, or --table TABLE --data ROOT")
        self.check()

        from vidseg.weights.progress import DownloadBar
        from vidseg_pipelines.progress import RunProgress
        from vidseg_pipelines.reproduce.run import run_benchmark
        from vidseg_pipelines.run import Loaders, load_run_sam

        with ExitStack() as stack:

            def on_start(name: str, count: int, unit: str) -> Callable[[], None]:
                stack.close()  # the bar of the row before
                bar = stack.enter_context(RunProgress(name, count, unit=unit))
                return lambda: bar.advance(1, 0)

            loaders = Loaders(sam=lambda config: load_run_sam(config, DownloadBar(config.model)))
            config = ReproduceConfig(**{f.name: getattr(self, f.name) for f in fields(ReproduceConfig)})
            if self.table:
                return self._table(config, loaders, on_start)
            result = run_benchmark(config, loaders=loaders, on_start=on_start)
        if self.json:
            sys.stdout.write(json.dumps(result.content(), indent=1) + "\n")
        else:
            sys.stdout.write(_shown(result) + "\n")
        return 5 if result.lacking else 0

    def _table(
        self, config: ReproduceConfig, loaders: Loaders, on_start: Callable[[str, int, str], Callable[[], None]]
    ) -> int:
        from vidseg_pipelines.reproduce.figure import check_figure, draw_figure
        from vidseg_pipelines.reproduce.tables import check_some, read_table, run_table, show_table, write_table

        table = read_table(self.table)
        if self.plot:
            check_figure(table)
        folder = config.output or Path("runs") / Path(self.table).stem
        config = ReproduceConfig(**{**{f.name: getattr(config, f.name) for f in fields(config)}, "output": folder})
        results = run_table(table, config, loaders=loaders, on_start=on_start)
        content = write_table(folder / "table.json", table, results)
        if self.plot:
            draw_figure(self.plot, table, results)
        sys.stdout.write((json.dumps(content, indent=1) if self.json else show_table(table, results, config)) + "\n")
        return check_some(results)


def _shown(result: ReproduceResult) -> str:
    """Protocol and table as text."""
    from vidseg_pipelines.reproduce.run import lookup

    protocol = {k: _flat(v) for k, v in result.protocol.items()}
    rows = [[name, *(lookup(scores, column) for column in result.columns)] for name, scores in result.scores.items()]
    parts = [text_pairs("protocol", protocol)]
    parts += [text_table(["masks", *result.columns], rows)] if result.columns else []
    parts += [f"no score: {text}" for text in result.lacking]
    return "\n\n".join([*parts, f"results: {result.folder}"])


def _flat(value: object) -> object:
    return "; ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else value
