"""XMem's memory: the top-k read against a dense product, and late objects in the official and in the correct bank.

    python benchmarks/xmem_memory.py [--threads 1] [--height 30 --width 54] [--objects 3] [--value-dim 512]

The first table is CPU time of one read at 480p (30x54 positions) for a growing memory: gathering 30 values per pixel
gives the same readout as multiplying the affinity, which is mostly zeros. The second is a world of 120 places that
wander over the image: every place has a key and a value, and a good memory answers a place's key with its value.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from vidseg_trackers.xmem.memory import Memory
from vidseg_trackers.xmem.memory_reading import expand_memory, expand_query, similarity, top_weights, weighted_rows
from vidseg_trackers.xmem.official_memory import OfficialMemory
from vidseg_trackers.xmem.options import XMemOptions

PLACES = 120
LATE = 5


def milliseconds(call: Callable[[], object], repeat: int = 5) -> float:
    """Smallest CPU time of several calls."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def reads(height: int, width: int, objects: int, value_dim: int) -> None:
    """Gather against dense product."""
    g = torch.Generator().manual_seed(0)
    query = expand_query(torch.randn(height * width, 64, generator=g), torch.rand(height * width, 64, generator=g))
    print("elements  similarity ms  top-k ms  gather ms  dense ms  largest difference")
    for frames in (1, 5, 10):
        count = frames * height * width
        memory = expand_memory(torch.randn(count, 64, generator=g), 1 + torch.rand(count, 1, generator=g))
        values = torch.randn(objects, count, value_dim, generator=g)
        scores = similarity(query, memory)
        weights, index = top_weights(scores, 30)

        def gather(values: Tensor = values, weights: Tensor = weights, index: Tensor = index) -> list[Tensor]:
            return [weighted_rows(value, weights, index) for value in values]

        def dense(
            values: Tensor = values, weights: Tensor = weights, index: Tensor = index, scores: Tensor = scores
        ) -> list[Tensor]:
            affinity = torch.zeros_like(scores).scatter_(1, index, weights)
            return [affinity @ value for value in values]

        difference = max(float((a - b).abs().max()) for a, b in zip(gather(), dense(), strict=True))
        similar = milliseconds(lambda memory=memory: similarity(query, memory))
        top = milliseconds(lambda scores=scores: top_weights(scores, 30))
        print(
            f"{count:8}  {similar:13.1f}  {top:8.1f}  {milliseconds(gather):9.1f}  {milliseconds(dense):8.1f}"
            f"  {difference:.1e}"
        )


def late_objects(frames: int) -> None:
    """How well the first object and one that appears on memory frame 5 are answered, and how large the banks get."""
    options = XMemOptions(top_k=5, max_long_term_elements=1000, num_prototypes=64)
    print("bank      frame  elements  first object  late object   (cosine with the right value)")
    for name, bank in (("official", OfficialMemory(options)), ("correct", Memory(options))):
        g = torch.Generator().manual_seed(1)
        keys, codes = torch.randn(PLACES, 64, generator=g), torch.randn(2, PLACES, 32, generator=g)
        scores: list[tuple[float, float]] = []
        try:
            for t in range(frames):
                places = torch.randint(0, PLACES, (PLACES,), generator=g)
                key = keys[places] + 0.3 * torch.randn(PLACES, 64, generator=g)
                ones = torch.ones(PLACES, 64)
                ids = [1, 2] if t >= LATE else [1]
                if t > LATE:
                    answer = bank.read(key, ones, ids)
                    right = torch.cosine_similarity(answer, codes[:, places], dim=-1).mean(1)
                    scores.append((float(right[0]), float(right[1])))
                bank.add(key, ones[:, :1], ones, {i: codes[i - 1, places] for i in ids}, ids if t in (0, LATE) else [])
                if t in (9, 16, 30, 60, 120, frames - 1):
                    recent = torch.tensor(scores[-5:]).mean(0)
                    print(f"{name:8}  {t:5}  {sum(bank.sizes):8}  {recent[0]:12.3f}  {recent[1]:11.3f}")
        except ValueError as error:
            print(f"{name:8}  {t:5}  {error}")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--height", type=int, default=30)
    parser.add_argument("--width", type=int, default=54)
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--value-dim", type=int, default=512)
    parser.add_argument("--frames", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        reads(options.height, options.width, options.objects, options.value_dim)
        late_objects(options.frames)


if __name__ == "__main__":
    main()
