"""The rows of a table as curves: figures 4 and 5 of the HQ-SAM paper, and tables 6 and 13."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vidseg.errors import UsageError
from vidseg.evaluation.tables import draw_curves
from vidseg_pipelines.reproduce.tables import RowResult, Table, TableRow


def check_figure(table: Table) -> None:
    """Look whether there is something to draw.

    Raises:
        UsageError: the rows are no curves.
    """
    if len(_steps(table)) < 2:
        raise UsageError(
            f"--plot: no curves in '{table.title}': there are some in figure-4, figure-5, and tables whose labels end "
            "in ', STEP'"
        )


def draw_figure(path: Path, table: Table, results: Sequence[RowResult]) -> None:
    """Draw our numbers over the steps; rows that were not run leave gaps.

    A step is what stands behind "@" in the name of a number (recall@0.7), or behind a comma in the label of a row.

    Raises:
        OutputError: the file cannot be written.
    """
    steps = _steps(table)
    places = {step: (k + 0.5) / len(steps) for k, step in enumerate(steps)}
    curves: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        for metric, value in result.ours.items():
            label, step = _step(result.row, metric)
            if value is not None and step:
                curves.setdefault(f"{label}: {metric.partition('@')[0]}", []).append((places[step], value / 100))
    ticks = {place: step for step, place in places.items()}
    draw_curves(path, table.title, ("", "score"), curves, ticks)


def _steps(table: Table) -> list[str]:
    """All steps, in order."""
    found = dict.fromkeys(_step(row, metric)[1] for row in table.rows for metric in row.paper)
    return [step for step in found if step]


def _step(row: TableRow, metric: str) -> tuple[str, str]:
    """What the row's curve is called, and its step ("" if it has none)."""
    label, _, step = row.label.partition(", ")
    return label, metric.partition("@")[2] or step
