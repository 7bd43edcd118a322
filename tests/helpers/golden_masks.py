"""What the embedded weights draw on made-up pictures; ``python tests/helpers/golden_masks.py`` writes the golden masks.

Look at the pictures before committing them: a change there is a change of what users get.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import paths
from vidseg.loading import load_sam
from vidseg.masks.paste import to_original_size
from vidseg.sam.model import SegmentAnything
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.types import Frame, Prompt, Tracker, VideoInfo
from vidseg_trackers.xmem.tracker import build

FOLDER = paths.FIXTURES / "embedded"
HEIGHT, WIDTH = 240, 320
FRAMES = 5


def scene(time: int) -> np.ndarray:
    """A disc and a leaning bar on a shaded ground, both moving."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    ground = np.stack([90 + x / 6, 110 + y / 5, 100 + 12 * np.sin(x / 23) * np.cos(y / 17)], -1)
    disc, bar = shapes(time)
    stripes = 14 * np.sin((x + 2 * y - 9 * time) / 5)
    ground[disc] = (np.array([205, 70, 50]) + stripes[..., None])[disc]
    ground[bar] = (np.array([40, 60, 165]) - stripes[..., None])[bar]
    return ground.clip(0, 255).astype(np.uint8)


def shapes(time: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the disc and of the bar, which is in front."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    bar = (np.abs((x - 225 + 4 * time) * 0.8 + (y - 120) * 0.6) < 17) & (np.abs((y - 120) * 0.8 - (x - 225) * 0.6) < 75)
    disc = np.hypot(x - 90 - 8 * time, y - 105 - 3 * time) < 46
    return disc & ~bar, bar


def drawn_by_sam(device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, np.ndarray]:
    """Masks of the embedded image model: the disc from a box, the bar from a click."""
    sam: SegmentAnything = load_sam(device=device, dtype=dtype, offline=True)
    (features,) = sam.encode([scene(0)])
    prompts = {
        "box": PromptBatch(boxes=np.array([[44, 59, 137, 152]], np.float32)),
        "click": PromptBatch(points=np.array([[[225, 120]]], np.float32), labels=np.array([[1]])),
    }
    found = {}
    for name, prompt in prompts.items():
        candidates = "best" if name == "click" else "single"
        (answer,) = sam.decode([features], [prompt], candidates=candidates)
        g = answer.geometry
        found[name] = (to_original_size(answer.logits[:, 0], g.padded, g.resized, g.original)[0] > 0).cpu().numpy()
    return found


def embedded_tracker(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Tracker:
    """The embedded tracker at the beginning of the video."""
    tracker: Tracker = build({}, device=torch.device(device), dtype=dtype, offline=True)
    tracker.start(VideoInfo(WIDTH, HEIGHT, Fraction(1)))
    return tracker


def probabilities(tracker: Tracker, frames: range = range(FRAMES)) -> list[torch.Tensor]:
    """Of every frame (2, H, W): what the tracker says about disc and bar, whose masks are given on frame 0."""
    found = []
    for time in frames:
        given = [Prompt(0, n, mask=m) for n, m in enumerate(shapes(0), 1)] if time == 0 else []
        (tracks,) = tracker.step(Frame(time, time, float(time), scene(time)), given)
        assert tracks.masks is not None and tracks.ids.tolist() == [1, 2]
        found.append(F.interpolate(tracks.masks[None].float().cpu(), (HEIGHT, WIDTH), mode="bilinear")[0])
    return found


def followed(tracker: Tracker, frames: range = range(FRAMES)) -> dict[str, np.ndarray]:
    """The same as label maps."""
    numbers = torch.tensor([1, 2])[:, None, None]
    maps = [((p > 0.5) * numbers).amax(0).numpy() for p in probabilities(tracker, frames)]
    return {f"tracker{time}": labels for time, labels in zip(frames, maps, strict=True)}


def write_labels(path: Path, labels: np.ndarray) -> None:
    image = Image.fromarray(labels.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 220, 60, 40, 40, 80, 220])
    image.save(path, optimize=True)


def read(name: str) -> np.ndarray:
    return np.array(Image.open(FOLDER / f"{name}.png"))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The lowest IoU of the objects of two label maps."""
    ids = {*np.unique(a), *np.unique(b)} - {0}
    return min(float(((a == i) & (b == i)).sum() / ((a == i) | (b == i)).sum()) for i in ids)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, labels in {**drawn_by_sam(), **followed(embedded_tracker())}.items():
        write_labels(FOLDER / f"{name}.png", labels)
