"""How well the objects of a clip are found when nobody names any: annotated objects against what `vidseg run` finds.

    python benchmarks/discovery_quality.py DATA [--clips dev|others|all] [--objects 5] [--frames 2] [--sheet PNG]

DATA holds one folder per clip with frames/ and masks/ (DAVIS palette). On the first frame, and on others at even
distances, up to ``--objects`` objects are found. Only some objects of a clip are annotated, so what else is found is
not wrong; printed are, over all annotated objects: the share found with an IoU of at least 0.5, the mean of the best
IoU, and the share of frames whose first object is an annotated one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.evaluation.label_maps import read_label_map
from vidseg.loading import load_sam
from vidseg.training.splits import dev_clips
from vidseg_pipelines.discovery import discover_objects

COLOURS = np.array([(255, 40, 40), (40, 255, 40), (60, 90, 255), (255, 255, 0), (255, 0, 255)])


def overlap(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    """IoU of two masks of which one is not empty."""
    return float((a & b).sum() / (a | b).sum())


def picture(rgb: npt.NDArray[np.uint8], masks: list[npt.NDArray[np.bool_]]) -> npt.NDArray[np.uint8]:
    """A small frame with its masks, in the order red, green, blue, yellow, purple."""
    tile = rgb.copy()
    for k, mask in enumerate(masks):
        tile[mask] = (0.5 * tile[mask] + 0.5 * COLOURS[k % len(COLOURS)]).astype(np.uint8)
    return np.asarray(cv2.resize(tile, (320, 200), interpolation=cv2.INTER_AREA), np.uint8)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clips", choices=("dev", "others", "all"), default="dev")
    parser.add_argument("--objects", type=int, default=5)
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    dev = dev_clips(options.data)
    clips = [p for p in sorted(options.data.iterdir()) if p.is_dir()]
    clips = [p for p in clips if options.clips == "all" or (p.name in dev) == (options.clips == "dev")]
    sam = load_sam(options.model)
    best: list[float] = []
    hits: list[bool] = []
    tiles: list[npt.NDArray[np.uint8]] = []
    for clip in clips:
        frames = sorted((clip / "frames").iterdir())
        own: list[float] = []
        for number in np.linspace(0, len(frames) - 1, options.frames, endpoint=False).astype(int):
            rgb = np.asarray(cv2.imread(str(frames[number]))[..., ::-1], np.uint8)
            labels = read_label_map(clip / "masks" / f"{frames[number].stem}.png")
            wanted = [labels == i for i in np.unique(labels) if i not in (0, 255)]
            found = discover_objects(sam, sam.encode([rgb])[0], max_objects=options.objects, image=rgb)
            if wanted:
                own += [max((overlap(mask, w) for mask in found), default=0.0) for w in wanted]
                hits.append(bool(found) and max(overlap(found[0], w) for w in wanted) >= 0.5)
            tiles.append(picture(rgb, found))
        best += own
        print(f"{clip.name:<32}" + " ".join(f"{iou:.2f}" for iou in own), flush=True)
    found_share = np.mean([iou >= 0.5 for iou in best])
    print(
        f"{len(best)} annotated objects: found {found_share:.3f}, mean IoU {np.mean(best):.3f};"
        f" first object annotated on {np.mean(hits):.3f} of {len(hits)} frames"
    )
    if options.sheet:
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 6)
        rows = [np.hstack(tiles[i : i + 6]) for i in range(0, len(tiles), 6)]
        cv2.imwrite(str(options.sheet), np.vstack(rows)[..., ::-1])


if __name__ == "__main__":
    main()
