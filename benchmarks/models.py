"""What the models cost: parameters, operations, time and memory of one frame of 854x480 with three objects, in float32.

    python benchmarks/models.py [NAME ...] [--threads 1] [--frames 2]

Image models encode the frame and draw three boxes; trackers follow three masks, from the second frame on; detectors
look for three phrases. Weights are random where none are embedded, which changes no time. Operations are those that
torch counts (a multiplication and an addition are two), with convolutions counted as they are written. Times are those
of the processor (all threads), which other programs hardly change, and of the clock, the smallest of the frames each;
the load of the machine stands beside them. Every model runs in a process of its own; memory is its largest resident
size, of which the program itself, with torch, takes the share that the first line says.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidseg.backbones import winograd
from vidseg.backbones.resnet import ResNetConfig
from vidseg.loading import load_sam
from vidseg.sam.build import build_sam
from vidseg.sam.config import named_config
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam2.adapter import Sam2AsSam
from vidseg.sam2.config import Sam2Config
from vidseg.sam2.model import Sam2
from vidseg.types import Frame, Prompt, Tracker, VideoInfo
from vidseg_trackers.cutie.config import CutieConfig
from vidseg_trackers.cutie.network import Cutie
from vidseg_trackers.cutie.tracker import CutieTracker
from vidseg_trackers.mask2former.config import Mask2FormerConfig
from vidseg_trackers.mask2former.network import Mask2Former
from vidseg_trackers.mask2former.options import Mask2FormerOptions
from vidseg_trackers.mask2former.tracker import Mask2FormerTracker
from vidseg_trackers.sam2.tracker import Sam2Tracker
from vidseg_trackers.xmem.config import XMemConfig
from vidseg_trackers.xmem.network import XMem
from vidseg_trackers.xmem.tracker import XMemTracker
from vidseg_trackers.xmem.weights import load_network

HEIGHT, WIDTH = 480, 854
BOXES = np.array([[50, 100, 250, 380], [300, 100, 500, 380], [550, 100, 750, 380]], np.float32)

Step = Callable[[int], object]


def picture(t: int) -> np.ndarray:
    """Frame ``t`` of a video of noise."""
    return np.random.default_rng(t).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def nothing(name: str) -> tuple[nn.Module, Step]:
    """What the program itself takes."""
    return nn.Identity(), lambda t: None


def image_model(name: str) -> tuple[nn.Module, Step]:
    """Encode, and draw three boxes."""
    network: nn.Module
    if name.startswith("sam2"):
        network = Sam2(Sam2Config.official(name)).eval().requires_grad_(False)
        sam = Sam2AsSam(network)
    else:
        network = sam = load_sam("compact") if name == "compact" else build_sam(named_config(name)).eval()

    def step(t: int) -> object:
        return sam.decode(sam.encode([picture(t)]), [PromptBatch(boxes=BOXES)])

    return network, step


def tracker(name: str) -> tuple[nn.Module, Step]:
    """Follow three masks, or find objects."""
    network: nn.Module
    made: Tracker
    if name.startswith("cutie"):
        network = Cutie(CutieConfig.official(name.split("-")[1])).eval().requires_grad_(False)
        made = CutieTracker(network.to(memory_format=torch.channels_last))
    elif name.startswith("mask2former"):
        network = Mask2Former(Mask2FormerConfig(ResNetConfig())).eval().requires_grad_(False)
        made = Mask2FormerTracker(network, Mask2FormerOptions())
    elif name.startswith("track-"):
        network = Sam2(Sam2Config.official(name.removeprefix("track-"))).eval().requires_grad_(False)
        made = Sam2Tracker(network)
    else:
        if name == "compact-xmem":
            network = load_network(name, device=torch.device("cpu"), offline=True)
        else:
            network = XMem(XMemConfig()).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        made = XMemTracker(network)
    made.start(VideoInfo(WIDTH, HEIGHT, Fraction(24)))
    prompts = []
    for i, (x1, y1, x2, y2) in enumerate(BOXES.astype(int)):
        mask = np.zeros((HEIGHT, WIDTH), np.bool_)
        mask[y1:y2, x1:x2] = True
        prompts.append(Prompt(0, i + 1, mask=mask))

    def step(t: int) -> object:
        return made.step(Frame(t, t, t / 24, picture(t)), prompts if t == 0 and not made.finds_objects else ())

    return network, step


def detector(name: str) -> tuple[nn.Module, Step]:
    """Look for three phrases in a frame of the size the network takes."""
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection, Owlv2Config, Owlv2ForObjectDetection

    if name == "grounding-dino-tiny":
        network = GroundingDinoForObjectDetection(GroundingDinoConfig()).eval()
        words = {"input_ids": torch.tensor([[101, 2711, 1012, 2417, 2482, 1012, 3899, 1012, 102]])}
        shape = (1, 3, 749, 1333)
    else:
        network = Owlv2ForObjectDetection(Owlv2Config()).eval()
        words = {"input_ids": torch.arange(1, 49).view(3, 16)}
        shape = (1, 3, 960, 960)

    def step(t: int) -> object:
        return network(pixel_values=torch.randn(shape), **words)

    return network, step


MODELS = dict.fromkeys(("program",), nothing)
MODELS |= dict.fromkeys(("compact", "mobile-sam", "sam-hq-vit-tiny", "sam2.1-hiera-tiny"), image_model)
MODELS |= dict.fromkeys(("compact-xmem", "xmem", "cutie-small", "cutie-base", "track-sam2.1-hiera-tiny"), tracker)
MODELS |= {"mask2former-r50": tracker, "grounding-dino-tiny": detector, "owlv2-base": detector}
MODELS |= dict.fromkeys(("sam2.1-hiera-small", "sam2.1-hiera-base-plus", "sam2.1-hiera-large"), image_model)
MODELS |= dict.fromkeys(("sam-hq-vit-b", "sam-hq-vit-l", "sam-hq-vit-h"), image_model)


def measure(name: str, threads: int, frames: int) -> None:
    """Print the line of one model."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with torch.inference_mode():
        network, step = MODELS[name](name)
        count = sum(p.numel() for p in network.parameters()) / 1e6
        step(0)
        times, walls = [], []
        for t in range(1, 1 + frames):
            started, wall = time.process_time(), time.perf_counter()
            step(t)
            times.append(time.process_time() - started)
            walls.append(time.perf_counter() - wall)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        with FlopCounterMode(display=False) as counter, mock.patch.object(winograd, "_LEAST_TILES", float("inf")):
            step(1 + frames)
    print(
        f"{name:24} {count:12.1f}  {counter.get_total_flops() / 1e9:15.0f}  {min(times):11.2f}  {min(walls):10.2f}"
        f"  {peak:7.0f}  {os.getloadavg()[0]:5.1f}",
        flush=True,
    )


def main() -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(MODELS)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure(args.names[0], args.threads, args.frames)
        return
    print(f"{'model':24} parameters M  GFLOP per frame  CPU s/frame  s by clock  peak MB  load", flush=True)
    options = ["--threads", str(args.threads), "--frames", str(args.frames), "--child"]
    for name in args.names or MODELS:
        subprocess.run([sys.executable, __file__, name, *options], check=True)


if __name__ == "__main__":
    main()
