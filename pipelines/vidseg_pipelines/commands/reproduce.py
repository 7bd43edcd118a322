"""``vidseg reproduce``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.errors import UsageError
from vidseg.evaluation.tables import text_pairs, text_table
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.paper import way_of

if TYPE_CHECKING:
    from vidseg_pipelines.reproduce.run import ReproduceResult, Started
    from vidseg_pipelines.run import Loaders


@dataclass(frozen=True)
class ReproduceCommand(ReproduceConfig):
    """Run a whole benchmark, from the official data folder to the score; or a table or figure of the HQ-SAM paper next
    to ours.

    Benchmarks: davis2017, sav-val, sav-test, mose, lvos-v1, lvos-v2, vost, burst, ytvis2019, hq-ytvis, coco, uvo, lvis,
    sginw, hq44k-val (DIS, COIFT, HRSOD, ThinObject), big.
    Rows with the paper's numbers: table-2 (HQ token), table-3 (HQ feature), table-4 (finetuning), table-5 (UVO),
    table-6 (BIG), table-7 (COCO, LVIS), table-8 (HQ-YTVIS), table-9 (LoRA, adapters), table-10 (backbones), table-11
    (YTVIS), table-12 (DAVIS), table-13 (noisy boxes), table-15 (training data), table-16 (sets left out), figure-4
    (recall), figure-5 (clicks).
    Measured here: table-1 (parameters, speed, memory), table-14 (images of HQSeg-44K); figure-2 (quality, speed and
    size of all models with score files below --output or runs).
    Drawn: figure-1, figure-7 and figure-9, figure-10, figure-11, figure-12, figure-13, figure-14 (SAM and HQ-SAM side
    by side) and figure-6 (attention) from --images and --boxes; figure-8 (training masks). figure-3 is a drawing of the
    authors.
    Results already in the output folder are reused. Exit code 5: a part of a table could not be run.

    Examples:
      vidseg reproduce hq44k-val --data DATA --model sam-hq-vit-l
      vidseg reproduce hq44k-val --data DATA --prompt noisy-boxes --noise 0.2 --limit 20
      vidseg reproduce coco --data DATA --model sam-hq-vit-l --boxes detections.json
      vidseg reproduce davis2017 --data DATA --model sam-hq-vit-l --tracker xmem --tracker-option weights=xmem
      vidseg reproduce sav-val --data DATA --tracker sam2 --model sam2.1-hiera-tiny --refine none
      vidseg reproduce table-10 --data DATA
      vidseg reproduce figure-4 --data DATA --plot figure-4.png
      vidseg reproduce figure-7 --images DIR --boxes boxes.json --model sam-hq-vit-l
      vidseg reproduce table-1 --model sam-hq-vit-l
      vidseg reproduce --all --data DATA
    """

    table: str = ""
    """A table or figure of the paper (as NAME), or a YAML file; --model, --tracker and --limit override its rows."""
    all: bool = False
    """Run every row of the paper that can be run here and print one page (markdown, also OUTPUT/page.md): the paper's
    numbers, ours, the difference, and what is missing. Downloads nothing."""
    plot: Path | None = None
    """PNG file for a figure; with figure-4, figure-5, table-6 and table-13: our curves; with table-14: figure-8."""
    json: bool = False
    """Print the scores and the protocol as JSON instead of a table."""

    def run(self) -> int:
        """Run and report; returns the exit code."""
        if self.table and self.benchmark:
            raise UsageError("a benchmark and --table cannot be combined: table rows name their own")
        if self.all and (self.table or self.benchmark):
            raise UsageError("--all runs every table: leave out the benchmark and --table")
        name = self.table or (self.benchmark if way_of(self.benchmark) else "")
        way = way_of(name)
        if self.plot and not name:
            raise UsageError("--plot goes with a table or figure: figure-4, figure-5, table-6, table-13, ...")
        if not name and not self.benchmark and not self.all:
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
            if self.all:
                return self._all(config, loaders, on_start)
            if name:
                config = replace(config, benchmark="")
                if way not in ("rows", None):
                    from vidseg_pipelines.commands.reproduce_paper import PaperPart

                    return PaperPart(name, config, loaders, self.plot, self.json).run(way)
                return self._table(name, config, loaders, on_start)
            result = run_benchmark(config, loaders=loaders, on_start=on_start)
        if self.json:
            sys.stdout.write(json.dumps(result.content(), indent=1) + "\n")
        else:
            sys.stdout.write(_shown(result) + "\n")
        return 5 if result.lacking else 0

    def _all(self, config: ReproduceConfig, loaders: Loaders, on_start: Started) -> int:
        from vidseg_pipelines.reproduce.page import run_all
        from vidseg_pipelines.reproduce.tables import check_some

        folder = config.output or Path("runs") / "paper"
        page, results = run_all(replace(config, output=folder), loaders=loaders, on_start=on_start)
        make_folder(folder)
        with atomic_file(folder / "page.md") as file:
            file.write(page.encode())
        sys.stdout.write(page)
        return check_some(results)

    def _table(self, name: str, config: ReproduceConfig, loaders: Loaders, on_start: Started) -> int:
        from vidseg_pipelines.reproduce.figure import check_figure, draw_figure
        from vidseg_pipelines.reproduce.tables import check_some, read_table, run_table, show_table, write_table

        table = read_table(name)
        if self.plot:
            check_figure(table)
        folder = config.output or Path("runs") / Path(name).stem
        config = replace(config, output=folder)
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
