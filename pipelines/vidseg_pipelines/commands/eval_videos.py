"""`vidseg eval davis`, `vos`, `ytvis` and `hq-ytvis`: scores of videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

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
    from vidseg.evaluation.davis import DavisReport


@dataclass(frozen=True)
class DavisCommand(Outputs):
    """J, F and J&F of DAVIS 2017.

    --gt is a DAVIS root (Annotations/480p and ImageSets/2017), or a plain folder of sequences: SEQUENCE/masks/*.png or
    SEQUENCE/*.png. --pred has SEQUENCE/*.png with the same names. Pixel values are object ids: palette or grey PNG.

    Example: vidseg eval davis --gt DAVIS --pred results --json scores.json
    """

    task: Literal["semi-supervised", "unsupervised"] = "semi-supervised"
    """semi-supervised: objects given in the first frame; unsupervised: found by the method (any ids)."""
    split: str = "val"
    """File in ImageSets that names the sequences; not used for plain folders."""

    def run(self) -> int:
        """Evaluate and report; returns the exit code."""
        from vidseg.evaluation.davis import evaluate_davis

        report = evaluate_davis(self.gt, self.pred, self.task, self.split, self.workers)
        objects = _davis_objects(report)
        worst = sorted(objects, key=lambda row: cell_number(row["J&F"]))[:WORST]
        finish(self, report.protocol(), report.summary(), {"per_object": objects, "worst": worst})
        self.say(
            rows_table(
                "worst objects", worst, ("sequence", "object", "J&F", "J", "F", "worst_frame", "worst_frame_J&F")
            )
        )
        if self.plot:
            plot_shares(
                self.plot,
                f"DAVIS {self.task}: share of frames above a score",
                "J or F",
                {
                    "J": np.concatenate([s.j.ravel() for s in report.sequences]),
                    "F": np.concatenate([s.f.ravel() for s in report.sequences]),
                },
            )
        return 0


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


@dataclass(frozen=True)
class VosCommand(Outputs):
    """J&F (0..100) of sets of videos, by the rules of the data set: YouTube-VOS, MOSE, SA-V, LVOS, VOST, BURST.

    --gt is the official root (or SEQUENCE/*.png, SEQUENCE/masks/*.png: then as vos-benchmark computes it). --pred has
    SEQUENCE/*.png; of SA-V VIDEO/OBJECT/*.png; of BURST DATASET/VIDEO/*.png, or it is a result file. Frames without
    ground truth are not needed. The protocol that was used is printed.

    Example: vidseg eval vos --gt sav_val --pred results
    """

    all_frames: bool = False
    """Evaluate the first and the last annotated frame too."""
    split: str = "val"
    """Which part of the data set: a file that names the sequences, or a folder (val, valid, train, test)."""
    protocol: Literal["auto", "vos-benchmark", "vost-published"] = "auto"
    """auto: that of the data set. vos-benchmark: that rule for the label maps of any. vost-published: as the evaluator
    published with VOST, which counts 255 as background."""

    def run(self) -> int:
        """Evaluate and report; returns the exit code."""
        from vidseg.evaluation.vos import evaluate_vos

        report = evaluate_vos(
            self.gt,
            self.pred,
            skip_ends=not self.all_frames,
            split=self.split,
            workers=self.workers,
            protocol=self.protocol,
        )
        objects: list[dict[str, object]] = []
        for one in report.objects:
            j, f = one.means()
            row = {"sequence": one.sequence, "object": one.id, "J&F": (j + f) / 2, "J": j, "F": f}
            objects.append({**row, "frames": len(one.frames)})
        worst = sorted(objects, key=lambda row: cell_number(row["J&F"]))[:WORST]
        finish(self, report.protocol(), report.summary(), {"per_object": objects, "worst": worst})
        self.say(rows_table("worst objects", worst, ("sequence", "object", "J&F", "J", "F", "frames")))
        if self.plot:
            plot_shares(
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
class _TubeCommand(Outputs):
    class_agnostic: bool = False
    """Treat all objects as one class."""
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
    """Width of the boundary bands as a fraction of the diagonal; 0.01 is the strict variant."""

    def run(self) -> int:
        """Evaluate and report; returns the exit code."""
        _finish_tubes(self, self.ratio)
        return 0


def _finish_tubes(command: _TubeCommand, ratio: float | None) -> None:
    from vidseg.evaluation.tube_ap import evaluate_tubes

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
    finish_ap(command, "video_id", report.protocol, tables)
