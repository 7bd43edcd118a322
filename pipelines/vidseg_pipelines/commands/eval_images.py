"""`vidseg eval coco`, `lvis` and `masks`: scores of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vidseg.evaluation.tables import text_pairs
from vidseg_pipelines.commands.eval_report import (
    WORST,
    Outputs,
    cell_number,
    finish,
    finish_ap,
    plot_shares,
    rows_table,
)

if TYPE_CHECKING:
    from vidseg.evaluation.image_ap import ImageApReport


@dataclass(frozen=True)
class _BoundaryCommand(Outputs):
    boundary: float | None = None
    """Also compute boundary AP, with bands of this fraction of the diagonal: 0.02, or 0.01 for the strict variant."""


@dataclass(frozen=True)
class CocoCommand(_BoundaryCommand):
    """Mask AP of COCO, and with --boundary the boundary AP too; UVO with --class-agnostic.

    --gt is the annotation file, --pred a list of {image_id, category_id, score, segmentation} with run-lengths.

    Example: vidseg eval coco --gt instances_val2017.json --pred results.json --boundary 0.02
    """

    class_agnostic: bool = False
    """Treat all objects as one class."""
    max_dets: tuple[int, ...] = (1, 10, 100)
    """Detections per image and class, ascending; AP uses the last one."""

    def run(self) -> int:
        """Evaluate and report; returns the exit code."""
        from vidseg.evaluation.image_ap import evaluate_coco

        report = evaluate_coco(
            self.gt,
            self.pred,
            ratio=self.boundary,
            class_agnostic=self.class_agnostic,
            max_dets=self.max_dets,
            workers=self.workers,
        )
        _finish_image_ap(self, report)
        return 0


@dataclass(frozen=True)
class LvisCommand(_BoundaryCommand):
    """Mask AP of LVIS v1, and with --boundary the boundary AP too; files as for `vidseg eval coco`.

    Example: vidseg eval lvis --gt lvis_v1_val.json --pred results.json --boundary 0.02
    """

    def run(self) -> int:
        """Evaluate and report; returns the exit code."""
        from vidseg.evaluation.image_ap import evaluate_lvis

        report = evaluate_lvis(self.gt, self.pred, ratio=self.boundary, workers=self.workers)
        _finish_image_ap(self, report)
        return 0


def _finish_image_ap(outputs: _BoundaryCommand, report: ImageApReport) -> None:
    parts = {"mask": report.mask, "boundary": report.boundary}
    tables = {name: (part, report.stats(part)) for name, part in parts.items() if part}
    finish_ap(outputs, "image_id", report.protocol, tables)


@dataclass(frozen=True)
class MasksCommand(Outputs):
    """mIoU and mBIoU of two folders of masks.

    --gt has NAME.png (grey, foreground above 128), --pred has NAME.png of the same size, or NAME.npy with logits of any
    size.

    Example: vidseg eval masks --gt DIS-VD/gt --pred results --plot recall.png
    """

    ratio: float = 0.02
    """Width of the boundary bands as a fraction of the diagonal."""

    def run(self) -> int:
        """Evaluate and report; returns the exit code."""
        from vidseg.evaluation.region import evaluate_masks

        report = evaluate_masks(self.gt, self.pred, ratio=self.ratio, workers=self.workers)
        images: list[dict[str, object]] = [{"name": i.name, "IoU": i.iou, "BIoU": i.biou} for i in report.images]
        scored = [row for row in images if row["IoU"] is not None]
        worst = sorted(scored, key=lambda row: cell_number(row["BIoU"]))[:WORST]
        recall = report.recall()
        details = {"recall_at_biou": recall, "per_image": images, "worst": worst}
        finish(self, report.protocol(), report.summary(), details)
        self.say(
            text_pairs("share of images with a boundary IoU above", {t: f"{share:.4f}" for t, share in recall.items()})
        )
        self.say(rows_table("worst images", worst, ("name", "IoU", "BIoU")))
        if self.plot:
            values = {
                name: np.array([row[name] for row in images if row[name] is not None]) for name in ("IoU", "BIoU")
            }
            plot_shares(self.plot, "share of images above a score", "IoU or boundary IoU", values)
        return 0
