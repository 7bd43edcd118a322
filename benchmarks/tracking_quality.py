"""J&F of a tracker over clips with ground truth, first mask given, beside two floors.

    python benchmarks/tracking_quality.py --data ../shared/data/videos [--clips dev] [--option size=320] [--json FILE]
    python benchmarks/tracking_quality.py --data ../shared/data/videos --clips other --leave cover [--away 12]

``still`` keeps the first mask where it is; ``flow`` moves the last mask along dense optical flow (DIS). Every clip is a
folder with frames/ and masks/ (palette PNG). ``--clips dev`` is the third of the clips that no recipe trains on,
``other`` the rest. Scores as in DAVIS 2017 (semi-supervised): first and last frame do not count, mean over objects,
then over clips.

With ``--leave`` objects leave and return (see leaving.py), and beside J&F stands how many of the frames without the
object show a ghost, of what area (percent of the frame, mean over those without the object), and how many frames the
objects are back before they are followed again (J of at least 0.5; those never followed count to the end).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from leaving import U8, VOID, leave

from vidseg.evaluation.contours import region_and_contour
from vidseg.files import data_folders
from vidseg.registry import build_tracker
from vidseg.training.splits import dev_clips
from vidseg.types import Frame, Prompt, Tracks, VideoInfo
from vidseg_trackers.xmem.training.bank import Clip, read_clip


def by_tracker(name: str, options: dict[str, object]) -> Callable[[Clip], U8]:
    """Label maps (T, H, W) of a registered tracker."""

    def run(clip: Clip) -> U8:
        tracker = build_tracker(name, options, offline=True)
        first = clip.labels[0]
        ids = [int(i) for i in np.unique(first) if i not in (0, VOID)]
        height, width = first.shape
        prompts = [Prompt(0, i, mask=first == i) for i in ids]
        tracker.start(VideoInfo(width, height, Fraction(24), len(clip.frames), name=clip.name))
        tracks: list[Tracks] = []
        for index, rgb in enumerate(clip.frames):
            tracks += tracker.step(Frame(index, index, index / 24, rgb), prompts if index == 0 else ())
        tracks += tracker.finish()
        return np.stack([first, *(label_map(t, height, width) for t in tracks[1:])])

    return run


def label_map(tracks: Tracks, height: int, width: int) -> U8:
    """The most probable object or background at every pixel of the frame."""
    if tracks.masks is None or not len(tracks.ids):
        return np.zeros((height, width), np.uint8)
    masks = np.stack([cv2.resize(m, (width, height), interpolation=cv2.INTER_LINEAR) for m in tracks.masks.numpy()])
    background = 1 - masks.sum(0, keepdims=True)
    best = np.concatenate([background, masks]).argmax(0)
    return np.array([0, *tracks.ids], np.uint8)[best]


def still(clip: Clip) -> U8:
    """The first label map, for ever."""
    return np.repeat(clip.labels[:1], len(clip.labels), axis=0)


def flow(clip: Clip) -> U8:
    """The last label map, sampled along the optical flow from each frame back to the one before."""
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    out = [clip.labels[0]]
    grey = [np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8) for frame in clip.frames]
    y, x = np.mgrid[: grey[0].shape[0], : grey[0].shape[1]].astype(np.float32)
    for before, now in pairwise(grey):
        back = estimator.calc(now, before, None)
        warped = cv2.remap(out[-1], x + back[..., 0], y + back[..., 1], cv2.INTER_NEAREST)
        out.append(np.asarray(warped, np.uint8))
    return np.stack(out)


def score(truth: U8, guess: U8) -> tuple[float, float]:
    """Mean J and F in percent over the objects of the first frame."""
    objects = [int(i) for i in np.unique(truth[0]) if i not in (0, VOID)]
    pairs = [region_and_contour(truth[t] == i, guess[t] == i) for i in objects for t in range(1, len(truth) - 1)]
    j, f = 100 * np.mean(pairs, axis=0)
    return float(j), float(f)


def ghosts(truth: U8, guess: U8) -> tuple[int, int, float, int]:
    """Frames without an object that show it, all without it, area shown there (percent), frames until it is back."""
    shown, away, area, delay = 0, 0, 0.0, 0
    for i in (int(i) for i in np.unique(truth[0]) if i not in (0, VOID)):
        there, found = (labels == i for labels in (truth, guess))
        missing = np.flatnonzero(~there.any((1, 2)))
        shown, away = shown + int(found[missing].any((1, 2)).sum()), away + len(missing)
        area += 100 * float(found[missing].mean((1, 2)).sum())
        for t in range(missing[-1] + 1 if len(missing) else len(truth), len(truth)):
            if 2 * (there[t] & found[t]).sum() >= (there[t] | found[t]).sum():
                break
            delay += 1
    return shown, away, area / max(1, away), delay


def measure_leaving(run: Callable[[Clip], U8], data: Path, names: Sequence[str], how: str, away: int) -> None:
    """Print a table of clips whose objects leave and return."""
    print(f"{'clip':30s} {'J&F':>5s} {'ghosts':>9s} {'area':>6s} {'delay':>5s}")
    rows = []
    for name in names:
        clip = leave(read_clip(data / name, None), how, away)
        guess = run(clip)
        rows.append((np.mean(score(clip.labels, guess)), *ghosts(clip.labels, guess)))
        print("{:30s} {:5.1f} {:4d}/{:<4d} {:6.2f} {:5d}".format(name, *rows[-1]), flush=True)
    quality, shown, missing, area, delay = np.array(rows).T
    print(
        f"{'mean, sum, mean, sum':30s} {quality.mean():5.1f} {shown.sum():4.0f}/{missing.sum():<4.0f} "
        f"{area.mean():6.2f} {delay.sum():5.0f}"
    )


def strip(clip: Clip, guess: U8) -> U8:
    """Five frames with the guessed objects tinted and the true outlines in white."""
    colours = np.random.default_rng(3).integers(60, 255, (256, 3), np.uint8)
    row = []
    for t in np.linspace(0, len(guess) - 1, 5).astype(int):
        picture = clip.frames[t].copy()
        inside = guess[t] > 0
        picture[inside] = (0.4 * picture[inside] + 0.6 * colours[guess[t]][inside]).astype(np.uint8)
        edge = cv2.morphologyEx(clip.labels[t], cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        picture[edge] = 255
        row.append(cv2.resize(picture, (384, 384 * picture.shape[0] // picture.shape[1])))
    return np.hstack(row)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of clip folders")
    parser.add_argument("--clips", default="dev", help="dev, other, or names separated by commas")
    parser.add_argument("--leave", choices=("cover", "pan"), help="objects leave and return")
    parser.add_argument("--away", type=int, default=12, help="frames for which they are gone")
    parser.add_argument("--tracker", default="xmem")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="a setting of the tracker")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder for a strip of frames per clip")
    arguments = parser.parse_args()
    if arguments.leave and arguments.json:
        parser.error("--json is for clips as they are, without --leave")
    torch.set_num_threads(arguments.threads)
    options = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in arguments.option)}
    methods = {arguments.tracker: by_tracker(arguments.tracker, options), "still": still, "flow": flow}
    dev = dev_clips(arguments.data)
    other = tuple(folder.name for folder in data_folders(arguments.data) if folder.name not in dev)
    names = {"dev": dev, "other": other}.get(arguments.clips) or tuple(arguments.clips.split(","))
    if arguments.leave:
        measure_leaving(methods[arguments.tracker], arguments.data, names, arguments.leave, arguments.away)
        return
    results: dict[str, dict[str, tuple[float, float]]] = {}
    print(f"{'clip':30s} {'J':>5s} {'F':>5s} {'J&F':>5s} {'ms':>5s}   J&F of " + ", ".join(list(methods)[1:]))
    for name in names:
        clip = read_clip(arguments.data / name, None)
        results[name] = {}
        for method, run in methods.items():
            started = time.perf_counter()
            guess = run(clip)
            if method == arguments.tracker:
                seconds = (time.perf_counter() - started) / len(guess)
                if arguments.pictures:
                    arguments.pictures.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(arguments.pictures / f"{name}.png"), strip(clip, guess)[..., ::-1])
            results[name][method] = score(clip.labels, guess)
        j, f = results[name][arguments.tracker]
        floors = "  ".join(f"{np.mean(results[name][m]):5.1f}" for m in list(methods)[1:])
        print(f"{name:30s} {j:5.1f} {f:5.1f} {(j + f) / 2:5.1f} {1000 * seconds:5.0f}   {floors}", flush=True)
    means = {m: np.mean([results[n][m] for n in names], axis=0) for m in methods}
    for method, (j, f) in means.items():
        print(f"mean {method:25s} {j:5.1f} {f:5.1f} {(j + f) / 2:5.1f}")
    if arguments.json:
        summary = {m: {"J": j, "F": f, "J&F": (j + f) / 2} for m, (j, f) in means.items()}
        arguments.json.write_text(json.dumps({"mean": summary, "clips": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
