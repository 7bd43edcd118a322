"""Cutie per frame on a CPU: as the tracker computes it, against the plain formulation, from one memory, in one run.

    python benchmarks/cutie.py [--threads 1] [--model small] [--size 480 854] [--objects 3] [--frames 5] [--memory 9]
                               [--repeat 3]

Plain is one object after the other, so that nothing of the image is shared between them, in the default layout of
tensors, with direct convolutions; the memory is expanded at every read, and read by the product of
all values with an affinity that is mostly zeros. Weights are random, which changes no time. Both start from the same
memory of ``--memory`` frames and see the same frames in turns; times are those of the processor (all threads), so
that other programs count little, and medians of the repetitions of each frame. A ratio is one of two steps that follow
each other directly, in alternating order, so that a machine that becomes slower slows both; the last line has the
median of all of them and the middle half. The last column is the largest difference of the probabilities.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidseg.backbones.winograd import WinogradConv2d
from vidseg_trackers.cutie.config import CutieConfig
from vidseg_trackers.cutie.inference_core import InferenceCore
from vidseg_trackers.cutie.memory import Memory
from vidseg_trackers.cutie.network import Cutie, ImageFeatures
from vidseg_trackers.cutie.object_transformer import ObjectTransformer, blocked_pixels
from vidseg_trackers.cutie.options import CutieOptions
from vidseg_trackers.xmem.memory_reading import expand_memory, expand_query, similarity, top_weights


class PlainConv2d(WinogradConv2d):
    """Every product computed, in a pass of its own."""

    def forward(self, input: Tensor, relu: bool = False) -> Tensor:
        """See :class:`WinogradConv2d`."""
        return self._conv_forward(nn.functional.relu(input) if relu else input, self.weight, self.bias)


class PlainTransformer(ObjectTransformer):
    """One object after the other; only who owns a pixel is decided together."""

    def forward(
        self, fused: Float[Tensor, "B N C h w"], object_memory: Float[Tensor, "B N Q C+1"]
    ) -> Float[Tensor, "B N C h w"]:
        """See :class:`ObjectTransformer`."""
        h, w = fused.shape[-2:]
        place = self.spatial_pe(h, w).flatten(0, 1)
        queries, pixels, query_pes, pixel_pes = [], [], [], []
        for one, sums in zip(fused.unbind(1), object_memory.unbind(1), strict=True):
            summary = sums[..., :-1] / (sums[..., -1:] + 1e-4)
            queries.append(self.query_init.weight + self.summary_to_query_init(summary))
            query_pes.append(self.query_emb.weight + self.summary_to_query_emb(summary))
            pixel_pes.append(place + self.pixel_emb_proj(one).flatten(2).transpose(1, 2))
            pixels.append(self.pixel_init_proj(one).flatten(2).transpose(1, 2))
        for block, mask_pred in zip(self.blocks, self.mask_pred, strict=False):
            logits = [mask_pred(pixel.transpose(1, 2).unflatten(2, (h, w))) for pixel in pixels]
            attend = ~blocked_pixels(torch.cat(logits, 1), queries[0].shape[1])
            for i in range(len(pixels)):
                queries[i], pixels[i] = block(queries[i], pixels[i], query_pes[i], pixel_pes[i], attend[:, i], (h, w))
        return torch.stack([pixel.transpose(1, 2).unflatten(2, (h, w)) for pixel in pixels], 1)


class PlainCutie(Cutie):
    """One object after the other."""

    def encode_mask(self, features: ImageFeatures, sensory: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`Cutie`."""
        others = (masks.sum(1, keepdim=True) - masks).clamp(0, 1)
        pairs = torch.stack([masks, others], 2)
        values = [self.mask_encoder(features.image, features.pixel, pair) for pair in pairs.unbind(1)]
        old = sensory.unbind(1)
        new = [self.mask_encoder.sensory_update(value, one) for value, one in zip(values, old, strict=True)]
        sums = [self.object_summarizer(v[:, None], masks[:, i : i + 1]) for i, v in enumerate(values)]
        return torch.stack(values, 1), torch.stack(new, 1), torch.cat(sums, 1)

    def fuse(self, features: ImageFeatures, readout: Tensor, sensory: Tensor, masks: Tensor) -> Tensor:
        """See :class:`Cutie`."""
        last = nn.functional.interpolate(masks, readout.shape[-2:], mode="area")
        others = (last.sum(1, keepdim=True) - last).clamp(0, 1)
        pairs = torch.stack([last, others], 2)
        parts = zip(readout.unbind(1), sensory.unbind(1), pairs.unbind(1), strict=True)
        return torch.stack([self.pixel_fuser(features.pixel, *part) for part in parts], 1)

    def segment(
        self, features: ImageFeatures, readout: Tensor, sensory: Tensor, *, update_sensory: bool
    ) -> tuple[Tensor, Tensor]:
        """See :class:`Cutie`."""
        parts = zip(readout.unbind(1), sensory.unbind(1), strict=True)
        drawn = [self.mask_decoder(features, *part, update_sensory) for part in parts]
        return torch.cat([logits for logits, _ in drawn], 1), torch.stack([new for _, new in drawn], 1)


class PlainMemory(Memory):
    """Expands the keys at every read, and multiplies a dense affinity with the values of every object."""

    def read(self, key: Tensor, selection: Tensor) -> Iterable[tuple[list[int], Tensor]]:
        """See :class:`Memory`."""
        query = expand_query(key, selection)[0]
        for bucket in self.buckets.values():
            scores = similarity(query, expand_memory(bucket.table["key"][0], bucket.table["shrinkage"][0]))
            weights, index = top_weights(scores, self.options.top_k)
            bucket.count(weights[None], index[None])
            affinity = torch.zeros_like(scores).scatter_(1, index, weights)
            yield bucket.ids, torch.stack([affinity @ value[0] for value in bucket.values.values()])[None]


def networks(model: str) -> tuple[Cutie, PlainCutie]:
    """The tracker's network with random weights, and the plain one with the same."""
    torch.manual_seed(0)
    config = CutieConfig.official(model)
    plain = PlainCutie(config)
    plain.object_transformer.__class__ = PlainTransformer
    fast = Cutie(config)
    fast.load_state_dict(plain.state_dict())
    for module in plain.modules():
        if isinstance(module, WinogradConv2d):
            module.__class__ = PlainConv2d
    fast, plain = (network.eval().requires_grad_(False) for network in (fast, plain))
    return fast.to(memory_format=torch.channels_last), plain


def video(count: int, height: int, width: int) -> Tensor:
    """Frames (count, 3, H, W) in 0..1: blurred noise that wanders."""
    g = torch.Generator().manual_seed(0)
    small = torch.rand(1, 3, height // 16 + count, width // 16 + count, generator=g)
    whole = nn.functional.interpolate(small, scale_factor=16, mode="bilinear")[0]
    return torch.stack([whole[:, 4 * t : 4 * t + height, 4 * t : 4 * t + width] for t in range(count)])


def main() -> None:
    """Print one line per frame and the totals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", choices=("base", "small"), default="small")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 854), metavar=("H", "W"))
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--frames", type=int, default=5, help="a multiple of 5: every fifth one is memorised")
    parser.add_argument("--memory", type=int, default=9, help="frames in memory at the beginning, 9 at most")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    height, width = args.size
    fast, plain = (InferenceCore(network, CutieOptions()) for network in networks(args.model))
    plain.memory = PlainMemory(plain.options)
    frames = video(args.memory + args.frames, height, width)
    side = width // (args.objects + 1)
    given = {}
    for i in range(args.objects):
        mask = torch.zeros(height, width)
        mask[height // 4 : 3 * height // 4, i * side + side // 2 : (i + 1) * side + side // 4] = 1
        given[i + 1] = mask
    fill = InferenceCore(fast.network, CutieOptions(mem_every=1))
    fill.step(frames[0], given)
    for t in range(1, args.memory):
        fill.step(frames[t])
    state = fill.state_dict()
    cores = {"plain": plain, "tracker": fast}

    def timed(name: str, t: int) -> tuple[float, Tensor]:
        """Seconds of the processor for frame ``t`` from the state before it, and the probabilities."""
        cores[name].load_state_dict(copy.copy(state), torch.device("cpu"))
        started = time.process_time()
        answer = cores[name].step(frames[t])
        return time.process_time() - started, answer

    print(
        f"{args.model}, {height}x{width}, {args.objects} objects, {args.memory} frames in memory, float32,"
        f" {args.threads} threads\nframe  plain s  tracker s  ratio  difference"
    )
    for name in cores:
        timed(name, args.memory)  # what is made once is made here
    totals, ratios, differences = dict.fromkeys(cores, 0.0), list[float](), list[float]()
    for t in range(args.memory, args.memory + args.frames):
        times: dict[str, list[float]] = {name: [] for name in cores}
        answers = {}
        for turn in range(args.repeat):
            for name in ("plain", "tracker") if turn % 2 == 0 else ("tracker", "plain"):
                seconds, answers[name] = timed(name, t)
                times[name].append(seconds)
        state = fast.state_dict()
        pairs = [a / b for a, b in zip(times["plain"], times["tracker"], strict=True)]
        ratios += pairs
        differences.append(float((answers["plain"] - answers["tracker"]).abs().max()))
        medians = {name: statistics.median(some) for name, some in times.items()}
        totals = {name: total + medians[name] for name, total in totals.items()}
        print(
            f"{t:5}  {medians['plain']:7.2f}  {medians['tracker']:9.2f}  {statistics.median(pairs):5.2f}"
            f"  {differences[-1]:.1e}",
            flush=True,
        )
    plain_s, fast_s = (total / args.frames for total in totals.values())
    low, ratio, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    print(f"all    {plain_s:7.2f}  {fast_s:9.2f}  {ratio:5.2f}  {max(differences):.1e}")
    print(
        f"ratio {ratio:.2f}, middle half of {len(ratios)} pairs {low:.2f} to {high:.2f}; load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
