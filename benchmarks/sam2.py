"""The ``sam2`` tracker on the CPU: time per frame against the plain formulation, and memory over long videos.

    python benchmarks/sam2.py [--threads 1] [--objects 1] [--repeat 1]     # time of SAM 2.1 tiny, random weights
    python benchmarks/sam2.py --memory                                     # a small network, 200 and 1,000 frames

The plain formulation does the same in float32 as the papers write it: object by object, attention as the softmax of a
matrix that is formed, values projected before they are averaged. Both see full memory: one prompted frame, six recent
ones and 16 pointers per object. Time is that of the processor, the smallest of ``--repeat`` frames.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from unittest import mock

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg.backbones.hiera import HieraConfig
from vidseg.sam2.config import Sam2Config
from vidseg.sam2.memory import RotaryAttention, rotate
from vidseg.sam2.model import Sam2, Sam2Features
from vidseg.types import Frame, Prompt, VideoInfo
from vidseg_trackers.sam2.options import Sam2Options
from vidseg_trackers.sam2.records import Reading, Record
from vidseg_trackers.sam2.rules import VideoRules
from vidseg_trackers.sam2.tracker import Sam2Tracker

HEIGHT, WIDTH = 480, 854


def textbook(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention as it is written."""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v


def wide(self: RotaryAttention, q: Tensor, k: Tensor, v: Tensor, rotation: Tensor, plain: int, mask: None) -> Tensor:
    """Memory attention with projected values, every key rotated by a table of its own."""
    q, k, v = self.q_proj(q), self.k_proj(k), self.v_proj(v)
    rotated = k.shape[1] - plain
    table = rotation.repeat(rotated // len(rotation), 1, 1)
    k = torch.cat([rotate(k[:, :rotated], table), k[:, rotated:]], 1)
    return self.out_proj(F.scaled_dot_product_attention(rotate(q, rotation)[:, None], k[:, None], v[:, None])[:, 0])


def network(config: Sam2Config) -> Sam2:
    """Random weights, all of them in use; every object is there."""
    torch.manual_seed(0)
    net = Sam2(config)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if not parameter.any() or name.endswith("gamma"):
                parameter.normal_(std=0.5)
        net.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(50.0)
    return net.eval().requires_grad_(False)


def track(rules: VideoRules, features: Sam2Features, readings: list[Reading]) -> list[Record]:
    """One frame of all objects, with memory of it."""
    records = rules.prompted(features, rules.condition(features, readings, 16))
    rules.remember(features, records, prompted=False)
    return records


def seconds(call: Callable[[], list[Record]], repeat: int) -> tuple[float, list[Record]]:
    """Smallest processor time of several calls, and what the last one gave."""
    times, records = [], list[Record]()
    for _ in range(repeat):
        start = time.process_time()
        records = call()
        times.append(time.process_time() - start)
    return min(times), records


def speed(objects: int, repeat: int) -> None:
    """SAM 2.1 tiny: whole frames, encoder included."""
    net = network(Sam2Config())
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    rules = VideoRules(net, torch.float32)
    with torch.inference_mode():
        features = net.encode_frame(rgb)
        first = rules.prompted(features, features.embedding.expand(objects, -1, -1, -1))
        rules.remember(features, first, prompted=False)
        noise = torch.Generator().manual_seed(1)
        readings = []
        for record in first:
            assert record.mem is not None
            memory = [
                replace(record, mem=record.mem + torch.randn(record.mem.shape, generator=noise)) for _ in range(7)
            ]
            pointers = [replace(record, ptr=torch.randn(record.ptr.shape, generator=noise)) for _ in range(16)]
            places = [(memory[0], 6), *((memory[k], k - 1) for k in range(6, 0, -1))]
            readings.append(Reading(tuple(places), tuple((p, d) for d, p in enumerate(pointers))))

        def ours() -> list[Record]:
            return track(rules, net.encode_frame(rgb), readings)

        def plain() -> list[Record]:
            features = net.encode_frame(rgb)
            return [record for one in readings for record in track(rules, features, [one])]

        mine, got = seconds(ours, repeat)
        with mock.patch.object(RotaryAttention, "forward", wide):
            fused, _ = seconds(plain, repeat)
            with ExitStack() as stack:
                stack.enter_context(mock.patch.object(F, "scaled_dot_product_attention", textbook))
                slow, expected = seconds(plain, repeat)
    worst = {
        part: max(float((getattr(a, part) - getattr(b, part)).abs().max()) for a, b in zip(got, expected, strict=True))
        for part in ("low", "ptr", "mem")
    }
    print(f"SAM 2.1 tiny, {WIDTH}x{HEIGHT}, {objects} object(s), full memory, float32, seconds of processor per frame")
    print(f"ours {mine:.2f}   plain {slow:.2f} ({slow / mine:.2f}x)   plain with PyTorch's attention {fused:.2f}"
          f" ({fused / mine:.2f}x)")  # fmt: skip
    print("largest difference: " + ", ".join(f"{part} {value:.1e}" for part, value in worst.items()))


def memory(objects: int) -> None:
    """Peak memory of the process over a long video, with a prompt now and then."""
    trunk = HieraConfig(16, 1, (1, 1, 1, 1), (2,))
    net = network(Sam2Config(trunk, dim=64, memory_dim=16, image_size=256, attention_layers=2, attention_ff=64))
    tracker = Sam2Tracker(net, Sam2Options())
    tracker.start(VideoInfo(128, 96, Fraction(24)))
    rng = np.random.default_rng(0)
    process, peaks = psutil.Process(), {200: 0, 1000: 0}
    for t in range(1000):
        prompts = [Prompt(t, i + 1, box=(10.0 + i, 10, 60, 60)) for i in range(objects)] if t % 100 == 0 else []
        tracker.step(Frame(t, t, t / 24, rng.integers(0, 256, (96, 128, 3), np.uint8)), prompts)
        for end in peaks:
            if t < end:
                peaks[end] = max(peaks[end], process.memory_info().rss)
    print(f"{objects} object(s), a prompt every 100 frames: " + ", ".join(
        f"peak of {end} frames {peak / 1e6:.1f} MB" for end, peak in peaks.items()
    ))  # fmt: skip


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        memory(options.objects)
    else:
        speed(options.objects, options.repeat)


if __name__ == "__main__":
    main()
