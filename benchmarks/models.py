"""What the models cost: parameters, operations and time of one frame of 854x480 with three objects, in float32.

    python benchmarks/models.py [NAME ...] [--threads 1] [--frames 2]

Image models encode the frame and draw three boxes; trackers follow three masks, from the second frame on. Weights are
random where none are embedded, which changes no time. Operations are those that torch counts (a multiplication and an
addition are two), times are those of the processor, the smallest of the frames.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidseg.loading import load_sam
from vidseg.sam.build import build_sam
from vidseg.sam.config import named_config
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.types import Frame, Prompt, VideoInfo
from vidseg_trackers.cutie.config import CutieConfig
from vidseg_trackers.cutie.network import Cutie
from vidseg_trackers.cutie.tracker import CutieTracker
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


def image_model(name: str) -> tuple[nn.Module, Step]:
    """Encode, and draw three boxes."""
    sam = load_sam("compact") if name == "compact" else build_sam(named_config(name)).eval()

    def step(t: int) -> object:
        return sam.decode(sam.encode([picture(t)]), [PromptBatch(boxes=BOXES)])

    return sam, step


def tracker(name: str) -> tuple[nn.Module, Step]:
    """Follow three masks."""
    network: nn.Module
    if name.startswith("cutie"):
        network = Cutie(CutieConfig.official(name.split("-")[1])).eval().requires_grad_(False)
        made = CutieTracker(network.to(memory_format=torch.channels_last))
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
        return made.step(Frame(t, t, t / 24, picture(t)), prompts if t == 0 else ())

    return network, step


MODELS = dict.fromkeys(("compact", "mobile-sam", "sam-hq-vit-tiny", "sam-hq-vit-b", "sam-hq-vit-l"), image_model)
MODELS |= {"sam-hq-vit-h": image_model}
MODELS |= dict.fromkeys(("compact-xmem", "xmem", "cutie-small", "cutie-base"), tracker)


def main() -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(MODELS)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("model            parameters M  GFLOP per frame  s per frame")
    for name in args.names or MODELS:
        torch.manual_seed(0)
        network, step = MODELS[name](name)
        count = sum(p.numel() for p in network.parameters()) / 1e6
        times = []
        with torch.inference_mode():
            step(0)
            for t in range(1, 1 + args.frames):
                started = time.process_time()
                step(t)
                times.append(time.process_time() - started)
            with FlopCounterMode(display=False) as counter:
                step(1 + args.frames)
        print(f"{name:16} {count:12.1f}  {counter.get_total_flops() / 1e9:15.0f}  {min(times):11.2f}", flush=True)


if __name__ == "__main__":
    main()
