"""What `keep_still` costs and gives, on clips with ground truth that are slowed down until their objects rest.

    python benchmarks/still.py DATA --clips NAME... [--frames 10] [--repeat 3] [--noise 2]

DATA holds one folder per clip with frames/ and masks/ (DAVIS palette). Of each clip the first frames are shown several
times each, every time with other noise (standard deviation in levels of 0..255), as a camera that stands still sees
them; `--repeat 1 --noise 0` takes a clip as it is. The first mask is given. Prints J&F and the processor time of the
run without and with the option, and how many of the masks were kept.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from corrections import Clip

from vidseg.loading import load_sam
from vidseg.masks.frame_masks import FrameMasks
from vidseg.registry import build_tracker
from vidseg.types import Frame, Tracker, VideoInfo
from vidseg_pipelines.refiner import RefineOptions, Refiner
from vidseg_pipelines.segmenter import Segmenter
from vidseg_pipelines.still_masks import StillMasks


def slowed(clip: Clip, count: int, repeat: int, noise: float) -> Clip:
    """The first frames of a clip, each several times."""
    rng = np.random.default_rng(0)
    frames: list[Frame] = []
    truth = []
    for frame, masks in list(zip(clip.frames, clip.truth, strict=True))[:count]:
        for _ in range(repeat):
            rgb = np.clip(frame.rgb + rng.normal(0, noise, frame.rgb.shape), 0, 255).astype(np.uint8)
            frames.append(replace(frame, index=len(frames), pts=len(frames), rgb=rgb))
            truth.append(masks)
    return Clip(clip.name, frames, truth)


class Counting(StillMasks):
    """Counts the masks that are kept."""

    kept = 0

    def look(self, *arguments: object) -> list[set[int]]:
        """As it does, and counts."""
        rows = super().look(*arguments)  # type: ignore[arg-type]
        self.kept += sum(map(len, rows))
        return rows


class CountingRefiner(Refiner):
    """Remembers what counts."""

    counting: Counting | None = None

    def still_masks(self) -> StillMasks | None:
        """One that counts."""
        self.counting = Counting(self.sam.config) if self.options.keep_still else None
        return self.counting


def run(clip: Clip, tracker: Tracker, refiner: CountingRefiner) -> tuple[Sequence[FrameMasks], float, int]:
    """Results, processor seconds, and the number of masks that were kept."""
    segmenter = Segmenter(tracker, refiner.sam, refiner, prompts=clip.given(0))
    height, width = clip.frames[0].hw
    begin = time.process_time()
    segmenter.start(VideoInfo(width, height, Fraction(24)))
    results = [m for at in range(0, len(clip.frames), 4) for _, m in segmenter.step(clip.frames[at : at + 4])]
    return results, time.process_time() - begin, 0 if refiner.counting is None else refiner.counting.kept


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clips", nargs="+", required=True)
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--noise", type=float, default=2.0)
    options = parser.parse_args()
    sam, tracker = load_sam("compact"), build_tracker("xmem")
    print(f"{'clip':<24}{'J&F':>8}{'kept':>8}{'CPU s':>8}{'kept':>8}   masks kept")
    for name in options.clips:
        clip = slowed(Clip.read(options.data / name), options.frames, options.repeat, options.noise)
        scores, seconds, share = [], [], ""
        for keep in (False, True):
            results, cpu, kept = run(clip, tracker, CountingRefiner(sam, RefineOptions(keep_still=keep)))
            scores.append(clip.scores(results).mean(0)[1:].mean())
            seconds.append(cpu)
            share = f"{kept} of {sum(len(r.ids) for r in results[1:])}"
        numbers = f"{scores[0]:8.2f}{scores[1]:8.2f}{seconds[0]:8.1f}{seconds[1]:8.1f}"
        print(f"{name:<24}{numbers}   {share}", flush=True)


if __name__ == "__main__":
    main()
