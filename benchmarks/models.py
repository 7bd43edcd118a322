"""What the models cost: parameters, operations, time and memory of one frame of 854x480 with three objects.

    python benchmarks/models.py [NAME ...] [--threads 1] [--frames 2] [--dtype float32 bfloat16] [--plain] [--run VIDEO]

Image models encode the frame and draw three boxes; trackers follow three masks, from the second frame on; detectors
look for three phrases. Weights are random where none are embedded, which changes no time. Operations are those that
torch counts (a multiplication and an addition are two), with convolutions counted as they are written. Times are those
of the processor (all threads), which other programs hardly change, and of the clock, the smallest of the frames each;
the load of the machine stands beside them. Every model runs in a process of its own; memory is its largest resident
size (with --plain: of both ways), of which the program itself, with torch, takes the share that the first line says.

Limit: the operations at the rate of a large matrix product of the same type, measured in turn with the frames, as a
share of the time; above 1 where the tiles of vidseg/backbones/winograd.py save operations. With --plain the same
frames are also computed as the papers write the operations, in turn with ours: a convolution per object, all weights of
a memory read, a bias for every pair of positions, no tiles. The ratio of the times and the least IoU of the masks
follow. By default both types are measured where the CPU has instructions for bfloat16.

With --run a whole run of the video follows, with its defaults and --threads: found objects, all files written, loading
left out. Its ``outside`` is the share of the time of its two threads that is spent outside the networks.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from unittest import mock

import numpy as np
import pipeline
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from vidseg.backbones import winograd
from vidseg.backbones.resnet import ResNetConfig
from vidseg.heap import keep_blocks
from vidseg.loading import load_sam
from vidseg.sam import image_encoder
from vidseg.sam.build import build_sam, place_sam
from vidseg.sam.config import named_config
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam2.adapter import Sam2AsSam
from vidseg.sam2.config import Sam2Config
from vidseg.sam2.loading import place_sam2
from vidseg.sam2.model import Sam2
from vidseg.types import Frame, Prompt, Tracker, Tracks, VideoInfo
from vidseg_trackers.cutie.config import CutieConfig
from vidseg_trackers.cutie.network import Cutie
from vidseg_trackers.cutie.tracker import CutieTracker
from vidseg_trackers.mask2former.config import Mask2FormerConfig
from vidseg_trackers.mask2former.network import Mask2Former
from vidseg_trackers.mask2former.options import Mask2FormerOptions
from vidseg_trackers.mask2former.tracker import Mask2FormerTracker
from vidseg_trackers.sam2.tracker import Sam2Tracker
from vidseg_trackers.xmem import memory, modules, resnet_encoders
from vidseg_trackers.xmem.config import XMemConfig
from vidseg_trackers.xmem.network import XMem
from vidseg_trackers.xmem.tracker import XMemTracker
from vidseg_trackers.xmem.weights import load_network

HEIGHT, WIDTH = 480, 854
BOXES = np.array([[50, 100, 250, 380], [300, 100, 500, 380], [550, 100, 750, 380]], np.float32)

Step = Callable[[int], object]
CPU = torch.device("cpu")


def picture(t: int) -> np.ndarray:
    """Frame ``t`` of a video of noise."""
    return np.random.default_rng(t).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def flops() -> FlopCounterMode:
    """A counter that knows the attention of CPUs too."""

    def attention(query: torch.Size, key: torch.Size, value: torch.Size, *args: object, **options: object) -> int:
        return int(sdpa_flop_count(query, key, value))

    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={fused: attention})


def nothing(name: str, dtype: torch.dtype) -> tuple[nn.Module, Step]:
    """What the program itself takes."""
    return nn.Identity(), lambda t: None


def sam2(name: str, dtype: torch.dtype) -> Sam2:
    """The network of a name such as ``sam2.1-hiera-tiny``."""
    generation, _, size = name.partition("-hiera-")
    letters = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}
    config = Sam2Config.official(f"{generation}_hiera_{letters[size]}")
    return place_sam2(Sam2(config).eval().requires_grad_(False), CPU, dtype)


def image_model(name: str, dtype: torch.dtype) -> tuple[nn.Module, Step]:
    """Encode, and draw three boxes."""
    network: nn.Module
    if name.startswith("sam2"):
        network = sam2(name, dtype)
        sam = Sam2AsSam(network)
    elif name == "compact":
        network = sam = load_sam("compact", dtype=dtype)
    else:
        network = sam = place_sam(build_sam(named_config(name)).eval(), CPU, dtype)

    def step(t: int) -> object:
        return sam.decode(sam.encode([picture(t)]), [PromptBatch(boxes=BOXES)])

    return network, step


def tracker(name: str, dtype: torch.dtype) -> tuple[nn.Module, Step]:
    """Follow three masks, or find objects."""
    network: nn.Module
    made: Tracker
    if name.startswith("cutie"):
        network = Cutie(CutieConfig.official(name.split("-")[1])).eval().requires_grad_(False)
        made = CutieTracker(network.to(dtype).to(memory_format=torch.channels_last))
    elif name.startswith("mask2former"):
        network = Mask2Former(Mask2FormerConfig(ResNetConfig())).eval().requires_grad_(False)
        made = Mask2FormerTracker(network, Mask2FormerOptions())
    elif name.startswith("track-"):
        network = sam2(name.removeprefix("track-"), dtype)
        made = Sam2Tracker(network)
    else:
        if name == "compact-xmem":
            network = load_network(name, device=CPU, dtype=dtype, offline=True)
        else:
            network = XMem(XMemConfig()).eval().requires_grad_(False).to(dtype).to(memory_format=torch.channels_last)
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


def detector(name: str, dtype: torch.dtype) -> tuple[nn.Module, Step]:
    """Look for three phrases in a frame of the size the network takes."""
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection, Owlv2Config, Owlv2ForObjectDetection

    if name == "grounding-dino-tiny":
        network = GroundingDinoForObjectDetection(GroundingDinoConfig()).eval()
        words = {"input_ids": torch.tensor([[101, 2711, 1012, 2417, 2482, 1012, 3899, 1012, 102]])}
        shape = (1, 3, 749, 1333)
    else:
        network = Owlv2ForObjectDetection(Owlv2Config(vision_config={"image_size": 960})).eval()
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


def fast_types() -> list[str]:
    """Those that this CPU has instructions for."""
    has = torch.cpu.get_capabilities()
    return ["float32", *["bfloat16"] * bool(has.get("avx512_bf16") or has.get("amx_bf16"))]


def product_rate(dtype: torch.dtype, size: int = 1024) -> float:
    """Operations per second of a matrix product."""
    a = torch.randn(size, size).to(dtype)
    began = time.process_time()
    a @ a
    return float(2 * size**3 / (time.process_time() - began))


def masks_of(answer: object) -> list[torch.Tensor]:
    """The masks that a step gave."""
    if not isinstance(answer, list):
        return []  # the program alone, and detectors, which draw none
    return [one.masks > 0.5 if isinstance(one, Tracks) else one.logits > 0 for one in answer]


def least_iou(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """Of the masks of two steps."""
    pairs = [(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    return min((float((a & b).sum() / (a | b).sum().clamp(min=1)) for a, b in pairs if (a | b).any()), default=1.0)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, row_bias: Tensor, column_bias: Tensor) -> Tensor:
    """As in the paper of ViTDet: every pair of positions has a logit, a bias and a weight in memory."""
    bias = (row_bias[..., :, None] + column_bias[..., None, :]).flatten(-2)
    return torch.softmax(q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2) + bias, -1) @ v


def plain_rows(values: Tensor, weights: Tensor, index: Tensor) -> Tensor:
    """As in the paper of XMem: an affinity of all pixels and all elements, mostly zeros."""
    affinity = weights.new_zeros(len(weights), len(values)).scatter_(1, index, weights)
    return affinity.to(values.dtype) @ values


def plain_conv(conv: nn.Conv2d, shared: Tensor, own: Tensor, relu: bool = False) -> Tensor:
    """The image's features are convolved again for every object."""
    x = torch.cat([shared.repeat_interleave(len(own) // len(shared), 0), own], 1)
    return nn.functional.conv2d(nn.functional.relu(x) if relu else x, conv.weight, conv.bias, conv.stride, conv.padding)


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """The operations as the papers write them."""
    with contextlib.ExitStack() as stack:
        for module, name, function in (
            (winograd, "_worth_it", lambda x, weight: False),
            (image_encoder, "attend_biased", plain_attention),
            (memory, "weighted_rows", plain_rows),
            (modules, "conv_with_shared", plain_conv),
            (resnet_encoders, "conv_with_shared", plain_conv),
        ):
            stack.enter_context(mock.patch.object(module, name, function))
        yield


def measure(name: str, threads: int, frames: int, dtype: torch.dtype, plain: bool) -> None:
    """Print the line of one model."""
    torch.set_num_threads(threads)
    keep_blocks()  # as in a run
    with torch.inference_mode():
        torch.manual_seed(0)
        network, step = MODELS[name](name, dtype)
        torch.manual_seed(0)  # the same random weights
        others = MODELS[name](name, dtype)[1] if plain else step
        count = sum(p.numel() for p in network.parameters()) / 1e6
        times, walls, plain_times, rates, ious = [], [], [], [], []
        for t in range(1 + frames):
            rates.append(product_rate(dtype))
            started, wall = time.process_time(), time.perf_counter()
            answer = step(t)
            times.append(time.process_time() - started)
            walls.append(time.perf_counter() - wall)
            if plain:
                with plainly():
                    started = time.process_time()
                    other = others(t)
                    plain_times.append(time.process_time() - started)
                ious.append(least_iou(masks_of(answer), masks_of(other)))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        with flops() as counter, mock.patch.object(winograd, "_LEAST_TILES", float("inf")):
            step(1 + frames)
    operations, took = counter.get_total_flops(), min(times[1:])
    line = f"{name:24} {str(dtype)[6:]:9} {count:12.1f}  {operations / 1e9:15.0f}  {took:11.2f}"
    line += f"  {min(walls[1:]):10.2f}  {peak:7.0f}  {os.getloadavg()[0]:5.1f}  {operations / max(rates) / took:5.2f}"
    print(line + (f"  {min(plain_times[1:]) / took:5.2f}  {min(ious):5.3f}" if plain else ""), flush=True)


def measure_run(video: str, threads: int, dtype: str, plain: bool) -> None:
    """Print the line of a whole run."""
    torch.set_num_threads(threads)
    rates = [product_rate(getattr(torch, dtype)) for _ in range(5)]
    started = time.process_time()
    summary, manifest = pipeline.run(video, [], dtype)
    stages, count = manifest["seconds"], summary.frames
    took = (time.process_time() - started - stages["load"]) / count
    wall = (manifest["wall_seconds"] - stages["load"]) / count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rates += [product_rate(getattr(torch, dtype)) for _ in range(5)]
    operations = pipeline.flops_per_frame(video)
    line = f"{'run':24} {dtype:9} {'':12}  {operations / 1e9:15.0f}  {took:11.2f}  {wall:10.2f}  {peak:7.0f}"
    line += f"  {os.getloadavg()[0]:5.1f}  {operations / max(rates) / took:5.2f}{' ' * 14 * plain}"
    print(f"{line}  {100 * pipeline.share_outside(stages):5.1f} %", flush=True)


def main() -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(MODELS)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--dtype", nargs="+", default=fast_types(), choices=("float32", "bfloat16"))
    parser.add_argument("--plain", action="store_true", help="against the operations as the papers write them")
    parser.add_argument("--run", metavar="VIDEO", help="a whole run too")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child and args.run:
        measure_run(args.run, args.threads, args.dtype[0], args.plain)
        return
    if args.child:
        measure(args.names[0], args.threads, args.frames, getattr(torch, args.dtype[0]), args.plain)
        return
    extra = "  plain    IoU" * args.plain + "  outside" * bool(args.run)
    print(
        f"{'model':24} type      parameters M  GFLOP per frame  CPU s/frame  s by clock  peak MB   load  limit{extra}",
        flush=True,
    )
    options = ["--threads", str(args.threads), "--frames", str(args.frames), "--child", *["--plain"] * args.plain]
    for name in args.names or MODELS:
        for dtype in args.dtype:
            subprocess.run([sys.executable, __file__, name, *options, "--dtype", dtype], check=True)
    for dtype in args.dtype if args.run else ():
        subprocess.run([sys.executable, __file__, *options, "--run", args.run, "--dtype", dtype], check=True)


if __name__ == "__main__":
    main()
