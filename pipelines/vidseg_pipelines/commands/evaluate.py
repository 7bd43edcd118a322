"""``vidseg eval ...``: each command prints its protocol, a table and the worst cases, and writes json and a picture."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vidseg.evaluation.average_precision import ApReport
from vidseg.evaluation.davis import DavisReport, evaluate_davis
from vidseg.evaluation.image_ap import ImageApReport, evaluate_coco, evaluate_lvis
from vidseg.evaluation.region import evaluate_masks
from vidseg.evaluation.tables import draw_curves, text_pairs, text_table, write_json
from vidseg.evaluation.tube_ap import evaluate_tubes
from vidseg.evaluation.vos import evaluate_vos
from vidseg.names import printable

_WORST = 10
_Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class _Outputs:
    gt: Path
    """Ground truth: a folder or a json file, see above."""
    pred: Path
    """Predictions, of the same kind."""
    json: Path | None = None
    """Write all numbers, the protocol and the details to this file."""
    plot: Path | None = None
    """Draw the curves into this PNG picture."""
    workers: int = 1
    """Processes to work with; the numbers do not depend on it."""


@dataclass(frozen=True)
class DavisCommand(_Outputs):
    """J, F and J&F of DAVIS 2017.

    --gt is a DAVIS root (Annotations/480p and ImageSets/2017), or a plain folder of sequences: SEQUENCE/masks/*.png or
    SEQUENCE/*.png. --pred has SEQUENCE/*.png with the same names. Pixel values are object ids: palette or grey PNG.

    Example: vidseg eval davis --gt DAVIS --pred results --json scores.json
    """

    task: Literal["semi-supervised", "unsupervised"] = "semi-supervised"
    """Objects given in the first frame, or found by the method (any ids)."""
    split: str = "val"
    """File in ImageSets that names the sequences; not used for plain folders."""

    def run(self) -> int:
        """Evaluate and report; returns the exit code."""
        report = evaluate_davis(self.gt, self.pred, self.task, self.split, self.workers)
        objects = _davis_objects(report)
        worst = sorted(objects, key=lambda row: _number(row["J&F"]))[:_WORST]
        _finish(self, report.protocol(), report.summary(), {"per_object": objects, "worst": worst})
        _say(
            _rows_table(
                "worst objects", worst, ("sequence", "object", "J&F", "J", "F", "worst_frame", "worst_frame_J&F")
            )
        )
        if self.plot:
            _plot_shares(
                self.plot,
                f"DAVIS {self.task}: share of frames above a score",
                "J or F",
                {
                    "J": np.concatenate([s.j.ravel() for s in report.sequences]),
                    "F": np.concatenate([s.f.ravel() for s in report.sequences]),
                },
            )
        return 0


@dataclass(frozen=True)
class VosCommand(_Outputs):
    """J&F (0..100) of folders of label maps like those of YouTube-VOS and MOSE, as vos-benchmark computes it.

    --gt has SEQUENCE/*.png (or SEQUENCE/masks/*.png, or is the root of DAVIS, YouTube-VOS, MOSE or LVOS), --pred has
    SEQUENCE/*.png; frames without ground truth are not needed.

    Example: vidseg eval vos --gt MOSE/Annotations --pred results
    """

    all_frames: bool = False
    """Evaluate the first and the last annotated frame too."""
    split: str = "val"
    """File in ImageSets that names the sequences of a DAVIS root."""

    def run(self) -> int:
        """Evaluate and report; returns the exit code."""
        report = evaluate_vos(self.gt, self.pred, skip_ends=not self.all_frames, split=self.split, workers=self.workers)
        objects: list[dict[str, object]] = []
        for one in report.objects:
            j, f = one.means()
            row = {"sequence": one.sequence, "object": one.id, "J&F": (j + f) / 2, "J": j, "F": f}
            objects.append({**row, "frames": len(one.frames)})
        worst = sorted(objects, key=lambda row: _number(row["J&F"]))[:_WORST]
        _finish(self, report.protocol(), report.summary(), {"per_object": objects, "worst": worst})
        _say(_rows_table("worst objects", worst, ("sequence", "object", "J&F", "J", "F", "frames")))
        if self.plot:
            _plot_shares(
                self.plot,
                "VOS: share of frames above a score",
                "J or F",
                {
                    "J": np.concatenate([one.j for one in report.objects]),
                    "F": np.concatenate([one.f for one in report.objects]),
                },
            )
        return 0


@dataclass(frozen=True)
class _TubeCommand(_Outputs):
    class_agnostic: bool = False
    """Take all objects as one class."""
    max_dets: tuple[int, ...] = (1, 10, 100)
    """Detections per video and class, ascending; AP uses the last one."""


@dataclass(frozen=True)
class YtvisCommand(_TubeCommand):
    """Tube AP of YouTube-VIS 2019, 2021 and 2022.

    --gt is the annotation file, --pred a results.json: a list of {video_id, category_id, score, segmentations} with
    compressed run-lengths or null per frame. The area classes s, m, l are those of the tubes, not lengths of videos.

    Example: vidseg eval ytvis --gt valid.json --pred results.json
    """

    def run(self) -> int:
        """Evaluate and report; returns the exit code."""
        _finish_tubes(self, None)
        return 0


@dataclass(frozen=True)
class HqYtvisCommand(_TubeCommand):
    """Tube mask AP (AP^M) and tube boundary AP (AP^B) of HQ-YTVIS; files as for `vidseg eval ytvis`.

    Example: vidseg eval hq-ytvis --gt ytvis_hq-test.json --pred results.json
    """

    ratio: float = 0.02
    """Width of the boundary bands as a share of the diagonal; 0.01 is the strict variant."""

    def run(self) -> int:
        """Evaluate and report; returns the exit code."""
        _finish_tubes(self, self.ratio)
        return 0


@dataclass(frozen=True)
class _BoundaryCommand(_Outputs):
    boundary: float | None = None
    """Evaluate boundary AP with bands of this share of the diagonal: 0.02, or 0.01 for the strict variant."""


@dataclass(frozen=True)
class CocoCommand(_BoundaryCommand):
    """Mask AP of COCO, and with --boundary the boundary AP too; UVO with --class-agnostic.

    --gt is the annotation file, --pred a list of {image_id, category_id, score, segmentation} with run-lengths.

    Example: vidseg eval coco --gt instances_val2017.json --pred results.json --boundary 0.02
    """

    class_agnostic: bool = False
    """Take all objects as one class."""
    max_dets: tuple[int, ...] = (1, 10, 100)
    """Detections per image and class, ascending; AP uses the last one."""

    def run(self) -> int:
        """Evaluate and report; returns the exit code."""
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
        report = evaluate_lvis(self.gt, self.pred, ratio=self.boundary, workers=self.workers)
        _finish_image_ap(self, report)
        return 0


@dataclass(frozen=True)
class MasksCommand(_Outputs):
    """mIoU and mBIoU of two folders of masks.

    --gt has NAME.png (grey, foreground above 128), --pred has NAME.png of the same size, or NAME.npy with logits of any
    size.

    Example: vidseg eval masks --gt DIS-VD/gt --pred results --plot recall.png
    """

    ratio: float = 0.02
    """Width of the boundary bands as a share of the diagonal."""

    def run(self) -> int:
        """Evaluate and report; returns the exit code."""
        report = evaluate_masks(self.gt, self.pred, ratio=self.ratio, workers=self.workers)
        images: list[dict[str, object]] = [{"name": i.name, "IoU": i.iou, "BIoU": i.biou} for i in report.images]
        worst = sorted((row for row in images if row["IoU"] is not None), key=lambda row: _number(row["BIoU"]))[:_WORST]
        recall = report.recall()
        details = {"recall_at_biou": recall, "per_image": images, "worst": worst}
        _finish(self, report.protocol(), report.summary(), details)
        _say(
            text_pairs("share of images with a boundary IoU above", {t: f"{share:.4f}" for t, share in recall.items()})
        )
        _say(_rows_table("worst images", worst, ("name", "IoU", "BIoU")))
        if self.plot:
            values = {
                name: np.array([row[name] for row in images if row[name] is not None]) for name in ("IoU", "BIoU")
            }
            _plot_shares(self.plot, "share of images above a score", "IoU or boundary IoU", values)
        return 0


def _say(text: str) -> None:
    sys.stdout.write("\n".join(map(printable, text.split("\n"))) + "\n\n")


def _number(value: object) -> float:
    assert isinstance(value, (int, float))  # rows are made here
    return value


def _finish(
    outputs: _Outputs,
    protocol: Mapping[str, object],
    summary: Mapping[str, object],
    details: Mapping[str, object],
) -> None:
    """Print protocol and summary; write the json file when one is wanted."""
    _say(text_pairs("protocol", protocol))
    _say(text_table(list(summary), [list(summary.values())]))
    if outputs.json:
        write_json(outputs.json, {**summary, "protocol": protocol, **details})


def _finish_tubes(command: _TubeCommand, ratio: float | None) -> None:
    report = evaluate_tubes(
        command.gt,
        command.pred,
        ratio=ratio,
        class_agnostic=command.class_agnostic,
        max_dets=command.max_dets,
        workers=command.workers,
    )
    parts = {"mask": report.mask, "boundary": report.boundary}
    tables = {name: (part, part.curves.stats()) for name, part in parts.items() if part}
    _finish_ap(command, "video_id", report.protocol, tables)


def _finish_image_ap(outputs: _BoundaryCommand, report: ImageApReport) -> None:
    parts = {"mask": report.mask, "boundary": report.boundary}
    tables = {name: (part, report.stats(part)) for name, part in parts.items() if part}
    _finish_ap(outputs, "image_id", report.protocol, tables)


def _finish_ap(
    outputs: _Outputs,
    place: str,
    protocol: Mapping[str, object],
    parts: Mapping[str, tuple[ApReport, dict[str, float]]],
) -> None:
    """Report one or two kinds of AP: ``parts`` maps each kind to its details and its table.

    The json file has the last part at its top level; two parts stand there under their names too.
    """
    _say(text_pairs("protocol", protocol))
    header = next(iter(parts.values()))[1]
    _say(text_table(["", *header], [[name, *table.values()] for name, (_, table) in parts.items()]))
    content: dict[str, dict[str, object]] = {}
    curves: dict[str, _Curve] = {}
    for name, (report, table) in parts.items():
        classes = report.per_category()
        worst: list[dict[str, object]] = [
            {place: miss.place, "annotation_id": miss.annotation, "category_id": miss.category, "overlap": miss.overlap}
            for miss in report.worst
        ]
        content[name] = {**table, "per_category": classes, "worst": worst}
        ranked = sorted(({"category": c, **row} for c, row in classes.items()), key=lambda row: _number(row["AP"]))
        _say(_rows_table(f"{name}: worst classes", ranked[:_WORST], ("category", "name", "AP", "AP50", "AP75")))
        _say(_rows_table(f"{name}: worst objects (best overlap of any detection)", worst))
        curves.update(_precision_recall(report, name))
    if outputs.json:
        named = content if len(parts) > 1 else {}
        write_json(outputs.json, {**content[list(parts)[-1]], **named, "protocol": protocol})
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


def _plot_shares(path: Path, title: str, score: str, values: Mapping[str, np.ndarray]) -> None:
    """Draw the share of ``values`` above each score."""
    points = np.linspace(0, 1, 101)
    curves = {
        name: [(float(p), float((array > p).mean()) if len(array) else 0.0) for p in points]
        for name, array in values.items()
    }
    draw_curves(path, title, (score, "share"), curves)


def _davis_objects(report: DavisReport) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for sequence, k, j, f in report.objects():
        both = (sequence.j[k] + sequence.f[k]) / 2
        worst = int(np.argmin(both))
        rows.append(
            {
                "sequence": sequence.name,
                "object": sequence.objects[k],
                "prediction": sequence.proposals[k],
                "J&F": (j.mean + f.mean) / 2,
                "J": j.mean,
                "J-Recall": j.recall,
                "J-Decay": j.decay,
                "F": f.mean,
                "F-Recall": f.recall,
                "F-Decay": f.decay,
                "worst_frame": sequence.frames[worst],
                "worst_frame_J&F": float(both[worst]),
            }
        )
    return rows


def _rows_table(title: str, rows: Sequence[Mapping[str, object]], keys: Sequence[str] = ()) -> str:
    if not rows:
        return f"{title}: none"
    keys = keys or list(rows[0])
    return f"{title}\n" + text_table(keys, [[row[key] for key in keys] for row in rows])
