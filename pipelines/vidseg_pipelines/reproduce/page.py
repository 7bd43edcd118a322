"""All tables and figures of the paper on one page (markdown): the paper's numbers, ours, the difference, what lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.paper import PAPER
from vidseg_pipelines.reproduce.run import Started
from vidseg_pipelines.reproduce.tables import RowResult, Table, read_table, run_table
from vidseg_pipelines.reproduce.training_sets import count_sets
from vidseg_pipelines.run import Loaders

_HEADER = ("| row | number | paper | ours | difference | missing |", "| --- | --- | --- | --- | --- | --- |")


def run_all(
    common: ReproduceConfig, *, loaders: Loaders | None = None, on_start: Started | None = None
) -> tuple[str, list[RowResult]]:
    """Run every row of every table that can be run here, and give the page and the results.

    Nothing is downloaded: weights that are not on this machine are named.

    Raises:
        UsageError: settings that are for the rows to say. InputError: no data folder. OutputError: a result cannot be
            written.
    """
    tables = {name: read_table(name) for name, (way, _) in PAPER.items() if way == "rows"}
    joined = Table("the paper", tuple(row for table in tables.values() for row in table.rows))
    results = run_table(joined, replace(common, offline=True), loaders=loaders, on_start=on_start)
    of_rows = iter(results)
    parts = ["# HQ-SAM: the paper's numbers and ours", _about(common)]
    for name, (way, title) in PAPER.items():
        parts.append(f"## {name}: {title}")
        if way == "rows":
            parts.append(_rows([next(of_rows) for _ in tables[name].rows]))
        elif name == "table-14":
            parts.append(_counts(common))
        else:
            parts.append(_elsewhere(name, way))
    return "\n\n".join(parts) + "\n", results


def _about(common: ReproduceConfig) -> str:
    told = [f"Data: {common.root}. Numbers are 0..100; difference: ours minus the paper's."]
    if common.model:
        told.append(f"Not the paper's protocol: every row ran with the model {common.model}.")
    if common.tracker:
        told.append(f"Not the paper's protocol: every tracker is {common.tracker}.")
    if common.limit:
        told.append(f"Not the paper's protocol: only the first {common.limit} images or videos of every set.")
    return " ".join(told)


def _rows(results: Sequence[RowResult]) -> str:
    lines = list(_HEADER)
    for result in results:
        label = f"{result.row.label} ({result.benchmark})"
        for number, paper in result.row.paper.items():
            ours = result.ours.get(number)
            difference = "-" if ours is None or paper is None else f"{ours - paper:+.1f}"
            missing = result.missing if number == next(iter(result.row.paper)) else ""
            if missing and number not in result.ours and len(result.row.paper) > 1:
                number = f"{number} and {len(result.row.paper) - 1} more"
            lines.append(_line(label, number, _cell(paper), _cell(ours), difference, missing))
            if missing and not result.ours:
                break
    return "\n".join(lines)


def _counts(common: ReproduceConfig) -> str:
    lines = list(_HEADER)
    for row in count_sets(common.root):
        difference = "-" if row.ours is None else f"{row.ours - row.paper:+d}"
        ours = "-" if row.ours is None else str(row.ours)
        lines.append(_line(row.name, "images", str(row.paper), ours, difference, row.missing))
    return "\n".join(lines)


def _elsewhere(name: str, way: str) -> str:
    return {
        "cost": f"Timed, so by itself: `vidseg reproduce {name}`.",
        "sets": f"`vidseg reproduce {name} --data ROOT` draws it.",
        "sheet": f"`vidseg reproduce {name} --images DIR --boxes FILE` draws it.",
        "attention": f"`vidseg reproduce {name} --images DIR --boxes FILE`, or `vidseg image --attention`, draws it.",
        "drawing": "The authors' drawing: there is nothing to measure.",
    }[way]


def _line(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
