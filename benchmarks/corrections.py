"""What corrections are worth, on clips with ground truth: one click, and three frames that are suggested.

    python benchmarks/corrections.py DATA --keep FOLDER [--clips dev|others|all|NAME...] [--only click]

DATA holds one folder per clip with frames/ and masks/ (DAVIS palette). The first mask is given and followed with the
default settings; then the same clip is computed with corrections, as `vidseg run --continue` or a `Session` would:

* click: one click on the worst frame (lowest J&F, with at least five frames after it), at the innermost point of the
  largest region that is wrong there, on the object or on what is none of it. Scored are the frames after it.
* suggested, spaced, worst: the annotation is given on three frames, those that `suggest` names from the signals of the
  run without corrections, all at once; three evenly spaced ones; the three of the lowest J&F, which lie apart like the
  suggested ones. Scored are all frames but the first; a corrected frame counts as the result shows it.
* rounds: as suggested, but one frame at a time: the next one is named after the clip was computed with the last.

FOLDER keeps the results of every clip; what is there is not computed again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.evaluation.contours import compare, contour_radius, outlines
from vidseg.evaluation.label_maps import read_label_map
from vidseg.loading import load_sam
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.suggestions import Suggestions, least_distance
from vidseg.registry import build_tracker
from vidseg.sam.model import SegmentAnything
from vidseg.training.splits import dev_clips
from vidseg.types import Frame, Prompt
from vidseg_pipelines.api import segment_frames

Mask = npt.NDArray[np.bool_]
POLICIES = ("click", "suggested", "spaced", "worst", "rounds")
AFTER = 5
"""Frames that follow the clicked one, at least."""


@dataclass(frozen=True)
class Clip:
    """Frames of a clip and their annotation; ``truth[k]`` maps the ids of the first annotation to masks (H, W)."""

    name: str
    frames: list[Frame]
    truth: list[dict[int, Mask]]

    @classmethod
    def read(cls, path: Path) -> Clip:
        """All of it."""
        frames, truth, ids = [], [], []
        for index, file in enumerate(sorted((path / "frames").iterdir())):
            rgb = np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])
            labels = read_label_map(path / "masks" / f"{file.stem}.png")
            ids = ids or [int(i) for i in np.unique(labels) if i not in (0, 255)]
            frames.append(Frame(index, index, index / 24, rgb))
            truth.append({i: labels == i for i in ids})
        return cls(path.name, frames, truth)

    def given(self, frame: int) -> list[Prompt]:
        """The annotation of a frame as prompts; an object without a pixel cannot be one."""
        return [Prompt(frame, i, mask=mask) for i, mask in self.truth[frame].items() if mask.any()]

    def scores(self, results: Sequence[FrameMasks]) -> npt.NDArray[np.float64]:
        """J&F in 0..100 of every object and frame, (N, T)."""
        columns = []
        for result, truth in zip(results, self.truth, strict=True):
            labels, ids = np.zeros(result.label_map.shape, np.uint8), list(truth)
            for i, mask in truth.items():
                labels[mask] = i
            radius = contour_radius(*labels.shape)
            guess = outlines(result.label_map, ids, radius, 0, 0)
            columns.append(
                [np.mean(compare(a, b)) for a, b in zip(outlines(labels, ids, radius, 0, 0), guess, strict=True)]
            )
        return 100 * np.array(columns).T

    def click(self, frame: int, result: FrameMasks) -> Prompt | None:
        """A click at the innermost point of the largest wrong region of any object; None where nothing is wrong."""
        best: tuple[int, Prompt] | None = None
        for i, truth in self.truth[frame].items():
            shown = result.label_map == i
            for wrong, label in ((truth & ~shown, 1), (shown & ~truth, 0)):
                _, parts, stats, _ = cv2.connectedComponentsWithStats(wrong.astype(np.uint8))
                if len(stats) < 2 or (label == 0 and not shown.any()):
                    continue
                part = int(stats[1:, cv2.CC_STAT_AREA].argmax()) + 1
                size = int(stats[part, cv2.CC_STAT_AREA])
                if best is None or size > best[0]:
                    point = innermost(parts == part)
                    best = size, Prompt(frame, i, points=(point,), point_labels=(label,))
        return None if best is None else best[1]


def innermost(mask: Mask) -> tuple[float, float]:
    """The point (x, y) of a mask that is farthest from its outside and from the frame's border."""
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return float(x) + 0.5, float(y) + 0.5


class Study:
    """Computes what is missing of a clip and keeps it."""

    def __init__(self, options: argparse.Namespace, sam: SegmentAnything) -> None:
        self.options, self.sam = options, sam
        options.keep.mkdir(parents=True, exist_ok=True)

    def run(self, clip: Clip, prompts: Sequence[Prompt]) -> list[FrameMasks]:
        """The clip with default settings."""
        tracker = build_tracker(self.options.tracker)
        given = [*clip.given(0), *prompts]
        return list(segment_frames(clip.frames, tracker=tracker, model=self.sam, prompts=given, batch=4))

    def clip(self, path: Path) -> dict[str, float]:
        """The scores of a clip by name, computed or kept."""
        file = self.options.keep / f"{path.name}.json"
        found: dict[str, object] = json.loads(file.read_bytes()) if file.is_file() else {}
        missing = [name for name in ("none", *self.options.only) if name not in found]
        if missing:
            clip = Clip.read(path)
            plain = self.run(clip, [])
            scores = clip.scores(plain)
            for name in missing:
                found[name] = self.policy(name, clip, plain, scores)
                file.write_text(json.dumps(found))
        return found  # type: ignore[return-value]

    def policy(self, name: str, clip: Clip, plain: list[FrameMasks], scores: npt.NDArray[np.float64]) -> object:
        """What is kept of one way to correct a clip."""
        count, per_frame = len(plain), scores.mean(0)
        if name == "none":
            rows = {
                str(i): [None if i not in r.ids else [float(r.scores[r.ids.index(i)]), signals_of(r, i)] for r in plain]
                for i in clip.truth[0]
            }
            return {"score": per_frame[1:].mean(), "scores": scores.tolist(), "signals": rows}
        if name == "click":
            frame = 1 + int(per_frame[1 : count - AFTER].argmin())
            click = clip.click(frame, plain[frame])
            after = scores if click is None else clip.scores(self.run(clip, [click]))
            rest = slice(frame + 1, None)
            where = None if click is None else [*click.points[0], click.point_labels[0], click.object_id]
            return {
                "frame": frame,
                "click": where,
                "before": per_frame[rest].mean(),
                "score": after.mean(0)[rest].mean(),
            }
        frames: list[int] = []
        if name == "spaced":
            frames = [round(count * k / 4) for k in (1, 2, 3)]
        elif name == "worst":
            apart = least_distance(count)
            for frame in 1 + per_frame[1:].argsort(kind="stable"):
                if len(frames) < 3 and all(abs(int(frame) - f) >= apart for f in (0, *frames)):
                    frames.append(int(frame))
        elif name == "suggested":
            frames = suggested(plain, 3)
        results = plain
        for _ in range(3 if name == "rounds" else 0):
            frames += suggested(results, 1)
            results = self.run(clip, [p for f in frames for p in clip.given(f)])
        if name != "rounds":
            results = self.run(clip, [p for f in frames for p in clip.given(f)])
        corrected = clip.scores(results).mean(0)
        return {"frames": sorted(frames), "score": corrected[1:].mean(), "per_frame": corrected.tolist()}


def signals_of(result: FrameMasks, object_id: int) -> dict[str, float]:
    """Signals of an object by name."""
    signals = result.signals[result.ids.index(object_id)]
    return {} if signals is None else signals.to_dict()


def suggested(results: Sequence[FrameMasks], count: int) -> list[int]:
    """The frames that `suggest` names."""
    suggestions = Suggestions()
    for result in results:
        suggestions.add(result)
    return [one.frame for one in suggestions.best(count)]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--clips", nargs="+", default=["dev"])
    parser.add_argument("--only", nargs="*", default=list(POLICIES), choices=POLICIES)
    parser.add_argument("--tracker", default="xmem")
    parser.add_argument("--model", default="compact")
    options = parser.parse_args()
    every = sorted(p.name for p in options.data.iterdir() if p.is_dir())
    dev = dev_clips(options.data)
    groups = {"dev": list(dev), "all": every, "others": [name for name in every if name not in dev]}
    names = groups.get(options.clips[0], options.clips)
    study = Study(options, load_sam(options.model))
    columns = ("none", *(["before"] if "click" in options.only else []), *options.only)
    print(f"{'clip':<32}" + "".join(f"{name:>11}" for name in columns))
    table = []
    for name in names:
        found = study.clip(options.data / name)
        row = [found["click"]["before"] if c == "before" else found[c]["score"] for c in columns]  # type: ignore[index]
        frames = "  ".join(str(found[c].get("frames", found[c].get("frame"))) for c in options.only)  # type: ignore[attr-defined]
        print(f"{name:<32}" + "".join(f"{value:11.1f}" for value in row) + f"  {frames}", flush=True)
        table.append(row)
    values = np.array(table)
    means = dict(zip(columns, values.mean(0), strict=True))
    print(f"{'mean of ' + str(len(names)):<32}" + "".join(f"{value:11.1f}" for value in means.values()))
    if "click" in options.only:
        gains = values[:, columns.index("click")] - values[:, columns.index("before")]
        worst = int(gains.argmin())
        print(f"one click: {gains.mean():+.1f} on the rest of a clip, worst {names[worst]} {gains[worst]:+.1f}")
    for policy in (c for c in ("suggested", "rounds") if {c, "worst"} <= set(columns)):
        share = (means[policy] - means["none"]) / (means["worst"] - means["none"])
        print(f"{policy}: {means[policy] - means['none']:+.1f}, {share:.0%} of what the worst frames give")


if __name__ == "__main__":
    main()
