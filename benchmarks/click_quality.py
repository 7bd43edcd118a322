"""How well clicks draw objects and correct tracked ones, on clips with ground truth.

    python benchmarks/click_quality.py DATA [--clips dev|others|all] [--frame 12] [--model compact]

DATA holds one folder per clip with frames/ and masks/ (DAVIS palette). Two situations, both as `vidseg run` meets them:

* A new object, on the first frame: one click at its innermost point, or its box.
* A correction, on ``--frame`` of a run from the first mask: what is shown of the object is cut by the left third of its
  box, and one click goes to the innermost point of what is missing there. Printed beside: the cut mask, the click
  without the mask, and what a click in the middle of the uncut mask, which should change nothing, makes of it.

Printed is the mean IoU with the annotation over all objects of at least 50 pixels.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.evaluation.label_maps import read_label_map
from vidseg.loading import load_sam
from vidseg.masks.boxes import mask_box
from vidseg.registry import build_tracker
from vidseg.sam.model import FrameFeatures, Sam
from vidseg.training.splits import dev_clips
from vidseg.types import Frame, Prompt, VideoInfo
from vidseg_pipelines.drawing import draw_prompts
from vidseg_pipelines.refiner import Refiner
from vidseg_pipelines.segmenter import Segmenter

Mask = npt.NDArray[np.bool_]
MIN_PIXELS = 50


def overlap(a: Mask, b: Mask) -> float:
    """IoU of two masks of which one is not empty."""
    return float((a & b).sum() / (a | b).sum())


def innermost(mask: Mask) -> tuple[float, float]:
    """The point (x, y) of a mask that is farthest from its outside and from the frame's border."""
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return float(x) + 0.5, float(y) + 0.5


def read_frame(clip: Path, number: int) -> tuple[Frame, dict[int, Mask]]:
    """A frame and its annotated objects."""
    path = sorted((clip / "frames").iterdir())[number]
    rgb = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
    labels = read_label_map(clip / "masks" / f"{path.stem}.png")
    return Frame(number, number, number / 24, rgb), {
        int(i): labels == i for i in np.unique(labels) if i not in (0, 255)
    }


class Scores:
    """IoU by name of what was drawn."""

    def __init__(self, sam: Sam) -> None:
        self.sam = sam
        self.rows: defaultdict[str, list[float]] = defaultdict(list)

    def draw(self, frame: Frame, features: FrameFeatures, prompt: Prompt, shown: dict[int, Mask] | None = None) -> Mask:
        """The mask of one prompt, as a run draws it."""
        return draw_prompts(self.sam, frame.rgb, features, [prompt], "auto", shown)[0]

    def add(self, name: str, mask: Mask, truth: Mask) -> None:
        """One mask."""
        self.rows[name].append(overlap(mask, truth))

    def new_objects(self, frame: Frame, truths: dict[int, Mask]) -> None:
        """One click, or the box, on the first frame."""
        (features,) = self.sam.encode([frame.rgb])
        for i, truth in truths.items():
            if truth.sum() < MIN_PIXELS:
                continue
            click = Prompt(frame.index, i, points=(innermost(truth),), point_labels=(1,))
            box = Prompt(frame.index, i, box=tuple(mask_box(truth).tolist()))
            self.add("new object: one click", self.draw(frame, features, click), truth)
            self.add("new object: box", self.draw(frame, features, box), truth)

    def corrections(self, frame: Frame, truths: dict[int, Mask], shown: dict[int, Mask]) -> None:
        """A third of what is shown is lost, and a click says so."""
        (features,) = self.sam.encode([frame.rgb])
        for i, truth in truths.items():
            mask = shown.get(i)
            if mask is None or truth.sum() < MIN_PIXELS:
                continue
            x1, _, x2, _ = mask_box(mask)
            left = np.arange(mask.shape[1]) < x1 + (x2 - x1) / 3
            cut, gap = mask & ~left, truth & left
            if not cut.any() or not gap.any():
                continue
            click = Prompt(frame.index, i, points=(innermost(gap),), point_labels=(1,))
            self.add("correction: mask without its left third", cut, truth)
            self.add("correction: mask + click", self.draw(frame, features, click, {**shown, i: cut}), truth)
            self.add("correction: click alone", self.draw(frame, features, click), truth)
            needless = Prompt(frame.index, i, points=(innermost(mask),), point_labels=(1,))
            self.add("needless click: before", mask, truth)
            self.add("needless click: after", self.draw(frame, features, needless, shown), truth)


def track(sam: Sam, clip: Path, last: int) -> dict[int, Mask]:
    """What a run from the first mask shows on frame ``last``."""
    frame, truths = read_frame(clip, 0)
    prompts = [Prompt(0, i, mask=mask) for i, mask in truths.items()]
    segmenter = Segmenter(build_tracker("xmem"), sam, Refiner(sam), prompts=prompts)
    segmenter.start(VideoInfo(frame.hw[1], frame.hw[0], Fraction(24)))
    for number in range(last + 1):
        ((_, result),) = segmenter.step([read_frame(clip, number)[0]])
    return dict(zip(result.ids, result.masks, strict=True))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clips", choices=("dev", "others", "all"), default="dev")
    parser.add_argument("--frame", type=int, default=12)
    parser.add_argument("--model", default="compact")
    options = parser.parse_args()
    dev = dev_clips(options.data)
    clips = [p for p in sorted(options.data.iterdir()) if p.is_dir()]
    clips = [p for p in clips if options.clips == "all" or (p.name in dev) == (options.clips == "dev")]
    scores = Scores(load_sam(options.model))
    for clip in clips:
        scores.new_objects(*read_frame(clip, 0))
        scores.corrections(*read_frame(clip, options.frame), track(scores.sam, clip, options.frame))
        print(clip.name, flush=True)
    for name, values in scores.rows.items():
        print(f"{name:<42}{np.mean(values):.3f}   {len(values)} objects, worst {min(values):.2f}")


if __name__ == "__main__":
    main()
