"""mIoU and mBIoU of the compact model on a folder of images and masks, boxes from the ground truth.

    python benchmarks/compact_quality.py DATA [--weights FILE] [--noise 0 0.4] [--grabcut 60] [--prompts] [--sheet PNG]
        [--dtype bfloat16]

DATA holds images/ and masks/. sam is the mask of the base network, hq the HQ mask, sum both added, zoom what users get:
the default mask with a second look at a crop around every object. Fill is the share of its box that an object fills.
Half precision is rounded as devices with instructions for it do (benchmarks/half_precision.py).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from half_precision import DTYPES, rounded

from vidseg.datasets.pairs import Item, find_pairs, load
from vidseg.evaluation.region import mask_scores
from vidseg.loading import load_sam
from vidseg.sam.config import Output
from vidseg.sam.mask_decoder import Candidates
from vidseg.sam.model import Sam
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam.zoom import draw_closely
from vidseg.training.quality import Predictor, Quality, Score, measure, sam_predictor, zoom_predictor
from vidseg.training.simulated_prompts import click, noisy_logits, tight_box
from vidseg.types import Prompt
from vidseg_pipelines.drawing import draw_object

DEFAULT = Path(__file__).resolve().parents[1] / "vidseg" / "weights" / "data" / "compact.safetensors"


def grabcut(image: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.bool_]]:
    """GrabCut (Rother et al. 2004) from the same boxes, five rounds."""
    found = []
    for box in boxes:
        x1, y1, x2, y2 = (int(v) for v in box)
        label = np.zeros(image.shape[:2], np.uint8)
        rect = (x1, y1, max(1, x2 - x1), max(1, y2 - y1))
        try:
            cv2.grabCut(image, label, rect, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_RECT)
        except cv2.error:  # a box without background around it
            label[y1:y2, x1:x2] = 1
        found.append((label & 1) == 1)
    return {"grabcut": np.stack(found)}


def other_prompts(sam: Sam, items: list[Item]) -> None:
    """Print the quality for a click, a click with the best of three masks, a tracker-like mask, and box with mask."""
    scores: dict[str, list[Score]] = {}
    for index, item in enumerate(items):
        sample, rng = load(item), np.random.default_rng(index)
        features = sam.encode([sample.image])
        geometry = features[0].geometry
        for mask in (m for m in sample.masks if (m > 128).any()):
            resized = cv2.resize(mask, geometry.resized[::-1], interpolation=cv2.INTER_AREA)
            canvas = np.zeros(geometry.padded, np.uint8)
            canvas[: geometry.resized[0], : geometry.resized[1]] = resized
            hint, box = noisy_logits(rng, canvas)[None], tight_box(mask)[None]
            points, labels = click(rng, mask)[None, None], np.ones((1, 1), np.int64)
            kinds: dict[str, tuple[PromptBatch, Candidates]] = {
                "box": (PromptBatch(boxes=box), "single"),
                "click": (PromptBatch(points=points, labels=labels), "single"),
                "click, best": (PromptBatch(points=points, labels=labels), "best"),
                "mask": (PromptBatch(masks=hint), "single"),
                "box + mask": (PromptBatch(boxes=box, masks=hint), "single"),
            }
            found = {
                name: sam.decode(features, [prompts], candidates=candidates)[0].upsampled()[0, 0].numpy() > 0
                for name, (prompts, candidates) in kinds.items()
            }
            for name in ("click", "click, best"):
                logits, _ = draw_closely(sam, sample.image, features[0], kinds[name][0], "always", None, kinds[name][1])
                found[f"{name}, zoom"] = logits[0, 0].numpy() > 0
            (place,) = points[0].tolist()
            asked = Prompt(0, 1, points=(tuple(place),), point_labels=(1,))
            found["click, as users get it"] = draw_object(sam, sample.image, features[0], asked, "auto").mask
            given = cv2.resize(hint[0], geometry.padded[::-1])[: geometry.resized[0], : geometry.resized[1]]
            found["(the mask itself)"] = cv2.resize(given, mask.shape[::-1]) > 0
            for name, answer in found.items():
                pair = mask_scores(mask > 128, answer)
                if pair is not None:
                    scores.setdefault(name, []).append(Score(item.source, *pair))
    for name, parts in scores.items():
        over = Quality.over_sources(parts)
        print(f"{name:24}: mean of sources mIoU {over.miou:.4f} mBIoU {over.mbiou:.4f}, ", end="")
        report("all masks", {"": parts})


def sheet(predict: Predictor, items: list[Item], path: Path) -> None:
    """A picture of ground truth and masks side by side, one row per image."""
    rows = []
    for item in items:
        sample = load(item)
        boxes = np.stack([tight_box(m) for m in sample.masks])
        tiles = []
        for found in (np.stack(sample.masks) > 128, *predict(sample.image, boxes).values()):
            picture = sample.image.copy()
            for i, mask in enumerate(found):
                colour = np.array([(255, 40, 40), (40, 255, 40), (60, 90, 255)][i % 3])
                picture[mask] = (0.45 * picture[mask] + 0.55 * colour).astype(np.uint8)
            tiles.append(cv2.resize(picture, (360, 240), interpolation=cv2.INTER_AREA))
        rows.append(np.hstack(tiles))
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


def report(label: str, scores: dict[str, list[Score]]) -> None:
    """One line per name."""
    for name, parts in scores.items():
        if parts:
            q = Quality.of(parts)
            print(f"{label:18} {name:8}: mIoU {q.miou:.4f} mBIoU {q.mbiou:.4f} ({q.count} masks)", flush=True)


def main() -> None:
    """Measure and print."""
    args = arguments()
    with rounded(args.dtype):
        everything(args)


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, default=DEFAULT)
    parser.add_argument("--noise", type=float, nargs="*", default=[0.0])
    parser.add_argument("--grabcut", type=int, default=0, help="GrabCut too, everything on this many images")
    parser.add_argument("--every", type=int, default=1, help="only every n-th image")
    parser.add_argument("--prompts", action="store_true", help="also clicks, masks, and box with mask")
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--sheet", type=Path, help="a picture of 12 images, masks side by side")
    return parser.parse_args()


def everything(args: argparse.Namespace) -> None:
    """All that is asked for."""
    items = find_pairs(args.data / "images", args.data / "masks")[:: args.every]
    sam = load_sam(args.weights, dtype=getattr(torch, args.dtype))
    outputs: tuple[Output, ...] = ("sam", "hq", "sum") if sam.config.hq else ("sam",)
    predict = sam_predictor(sam, outputs)
    for noise in args.noise:
        scores = measure(predict, items, noise) | measure(zoom_predictor(sam), items, noise)
        report(f"noise {noise:g}", scores)
        for name, parts in scores.items():
            q = Quality.over_sources(parts)
            print(f"{'  mean of sources':18} {name:8}: mIoU {q.miou:.4f} mBIoU {q.mbiou:.4f}")
        for low, high in ((0, 0.35), (0.35, 0.55), (0.55, 1.01)):
            some = {name: [s for s in parts if low <= s.fill < high] for name, parts in scores.items()}
            report(f"  fill {low:g}-{min(high, 1):g}", some)
        for source in sorted({item.source for item in items}):
            report(f"  {source}", {name: [s for s in parts if s.source == source] for name, parts in scores.items()})
    if args.grabcut:
        few = items[:: max(1, len(items) // args.grabcut)][: args.grabcut]
        report(f"{len(few)} images", measure(predict, few) | measure(grabcut, few))
    if args.prompts:
        other_prompts(sam, items)
    if args.sheet:
        sheet(predict, items[:: max(1, len(items) // 12)][:12], args.sheet)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
