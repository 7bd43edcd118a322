"""What the commands of ``vidseg eval`` take and write alike: protocol, table and worst cases, a json and an image."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidseg.evaluation.tables import draw_curves, json_text, text_pairs, text_table, write_json
from vidseg.names import printable

if TYPE_CHECKING:
    from vidseg.evaluation.average_precision import ApReport

STDOUT = Path("-")
WORST = 10
"""Number of worst cases shown."""
_Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Outputs:
    """Ground truth, predictions, and the files written besides the table."""

    gt: Path
    """Ground truth: a folder or a JSON file, see above."""
    pred: Path
    """Predictions, of the same kind."""
    json: Path | None = None
    """Write all numbers, the protocol and the details to this file; -: to standard output, instead of the tables."""
    plot: Path | None = None
    """Plot the curves to this PNG file."""
    workers: int = 1
    """Number of processes; the results do not depend on it."""

    def say(self, text: str) -> None:
        """Print a text and an empty line, unless standard output is for JSON."""
        if self.json != STDOUT:
            sys.stdout.write("\n".join(map(printable, text.split("\n"))) + "\n\n")

    def write(self, content: Mapping[str, object]) -> None:
        """Write the JSON file, if one is wanted."""
        if self.json == STDOUT:
            sys.stdout.write(json_text(content))
        elif self.json:
            write_json(self.json, content)


def cell_number(value: object) -> float:
    """A table cell as a number."""
    assert isinstance(value, (int, float))  # rows are made here
    return value


def finish(
    outputs: Outputs,
    protocol: Mapping[str, object],
    summary: Mapping[str, object],
    details: Mapping[str, object],
) -> None:
    """Print protocol and summary; write the JSON file if ``outputs.json`` is set."""
    outputs.say(text_pairs("protocol", protocol))
    outputs.say(text_table(list(summary), [list(summary.values())]))
    outputs.write({**summary, "protocol": protocol, **details})


def finish_ap(
    outputs: Outputs,
    place: str,
    protocol: Mapping[str, object],
    parts: Mapping[str, tuple[ApReport, dict[str, float]]],
) -> None:
    """Report one or two kinds of AP: ``parts`` maps each kind to its details and its table.

    The JSON file has the last part at its top level; two parts also appear under their names.
    """
    outputs.say(text_pairs("protocol", protocol))
    header = next(iter(parts.values()))[1]
    outputs.say(text_table(["", *header], [[name, *table.values()] for name, (_, table) in parts.items()]))
    content: dict[str, dict[str, object]] = {}
    curves: dict[str, _Curve] = {}
    for name, (report, table) in parts.items():
        classes = report.per_category()
        worst: list[dict[str, object]] = [
            {place: miss.place, "annotation_id": miss.annotation, "category_id": miss.category, "overlap": miss.overlap}
            for miss in report.worst
        ]
        content[name] = {**table, "per_category": classes, "worst": worst}
        ranked = sorted(({"category": c, **row} for c, row in classes.items()), key=lambda row: cell_number(row["AP"]))
        outputs.say(rows_table(f"{name}: worst classes", ranked[:WORST], ("category", "name", "AP", "AP50", "AP75")))
        outputs.say(rows_table(f"{name}: worst objects (best overlap of any detection)", worst))
        curves.update(_precision_recall(report, name))
    named = content if len(parts) > 1 else {}
    outputs.write({**content[list(parts)[-1]], **named, "protocol": protocol})
    if outputs.plot:
        draw_curves(outputs.plot, "precision over recall, mean over classes", ("recall", "precision"), curves)


def _precision_recall(report: ApReport, kind: str) -> dict[str, _Curve]:
    """Precision at IoU 0.50, 0.75 and over all thresholds, mean over the classes that have ground truth."""
    precision = report.curves.precision[:, :, :, 0, -1]
    valid = precision[:, :, (precision > -1).all(axis=(0, 1))]
    if not valid.size:
        return {}
    recall = np.linspace(0, 1, valid.shape[1])
    lines = {"IoU 0.50": valid[0], "IoU 0.75": valid[5], "IoU 0.50:0.95": valid.mean(axis=0)}
    return {
        f"{kind} {name}": list(zip(recall.tolist(), line.mean(axis=1).tolist(), strict=True))
        for name, line in lines.items()
    }


def plot_shares(path: Path, title: str, score: str, values: Mapping[str, np.ndarray]) -> None:
    """Draw the share of ``values`` above each score."""
    points = np.linspace(0, 1, 101)
    curves = {
        name: [(float(p), float((array > p).mean()) if len(array) else 0.0) for p in points]
        for name, array in values.items()
    }
    draw_curves(path, title, (score, "share"), curves)


def rows_table(title: str, rows: Sequence[Mapping[str, object]], keys: Sequence[str] = ()) -> str:
    """Rows under a title; ``keys`` names the columns, by default all."""
    if not rows:
        return f"{title}: none"
    keys = keys or list(rows[0])
    return f"{title}\n" + text_table(keys, [[row[key] for key in keys] for row in rows])
