"""What `--compile` gives on this machine: an image encoder eager and compiled, in turn, and the first image.

    python benchmarks/compiled.py compact              # twice: the second process finds what the first one compiled
    python benchmarks/compiled.py compact --device cuda --dtype bfloat16

Models that are not embedded get random weights. Times of a CPU are processor times of this process and its compilers.
VIDSEG_CACHE names an empty folder to begin anew.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import numpy as np
import torch

from vidseg.heap import keep_blocks
from vidseg.loading import load_sam
from vidseg.runtime import resolve_device, resolve_dtype
from vidseg.sam.build import build_sam, place_sam
from vidseg.sam.config import named_config
from vidseg.sam.model import Sam
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.weights.catalog import CATALOG

BOXES = np.array([[200, 150, 500, 600], [700, 100, 1000, 400], [900, 450, 1200, 700]], np.float32)


def main() -> None:
    """Print both times, the time of the first image, and the lowest IoU of three masks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="compact")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    keep_blocks()  # as in a run
    device = resolve_device(options.device)
    dtype, embedded = resolve_dtype(options.dtype, device), CATALOG[options.model].embedded

    def made() -> Sam:
        torch.manual_seed(0)
        sam = load_sam(options.model) if embedded else build_sam(named_config(options.model)).eval()
        assert isinstance(sam, Sam)
        return place_sam(sam.requires_grad_(False), device, dtype)

    plain, compiled = made(), made()
    compiled.compile_encoder()
    image = np.random.default_rng(0).integers(0, 255, (45, 80, 3), np.uint8).repeat(16, 0).repeat(16, 1)

    def now() -> float:
        if device.type == "cpu":
            used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
            return sum(one.ru_utime + one.ru_stime for one in used)
        torch.cuda.synchronize(device)
        return time.perf_counter()

    begun, wall = now(), time.perf_counter()
    compiled.encode([image])
    print(f"first image: {now() - begun:.1f} s, {time.perf_counter() - wall:.1f} s on the wall")
    seconds: dict[str, list[float]] = {"eager": [], "compiled": []}
    for _ in range(options.rounds):
        for name, sam in (("eager", plain), ("compiled", compiled)):
            begun = now()
            for _ in range(2):
                sam.encode([image])
            seconds[name].append((now() - begun) / 2)
    for name, all_of_it in seconds.items():
        print(f"{name}: {1e3 * statistics.median(all_of_it):.1f} ms per image")
    drawn = [sam.decode(sam.encode([image]), [PromptBatch(boxes=BOXES)])[0].logits for sam in (plain, compiled)]
    answers = [logits > (0 if embedded else logits.median()) for logits in drawn]
    both, either = ((op(*answers)).flatten(1).sum(1) for op in (torch.logical_and, torch.logical_or))
    print(f"IoU of the masks: {float((both / either.clamp(min=1)).min()):.4f}")


if __name__ == "__main__":
    main()
