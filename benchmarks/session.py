"""What a session costs: ``Session.step`` beside ``Segmenter.step``, on the same frames in one process.

    python benchmarks/session.py VIDEO [--frames N] [--tracker xmem] [--box x1,y1,x2,y2] [--threads 1]

Both follow the same objects. They take turns frame by frame, the first one alternating, and each call is measured by
the processor time of this process: what else the machine does hardly counts, with one thread least of all. Prints
medians: of the time per step of each, of their differences, and of the ratios of neighbours with their quartiles.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from statistics import median, quantiles

import torch

from vidseg import Session, load_sam, open_source
from vidseg.registry import build_tracker
from vidseg.types import Prompt, VideoInfo
from vidseg_pipelines.refiner import Refiner
from vidseg_pipelines.segmenter import Segmenter

WARM_UP = 2
"""First steps that do not count."""


def timed(call: Callable[[], object]) -> float:
    """Seconds of processor time that a call takes, of all threads."""
    started = time.process_time()
    call()
    return time.process_time() - started


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--tracker", default="xmem")
    parser.add_argument("--box", action="append", default=[])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    gc.disable()  # a collection would fall on one of the two
    source = open_source(options.video, frames=slice(0, options.frames))
    width, height = source.info.width, source.info.height
    texts = options.box or [f"{width // 4},{height // 4},{3 * width // 4},{3 * height // 4}"]
    boxes = [tuple(float(v) for v in text.split(",")) for text in texts]
    sam = load_sam()
    prompts = [Prompt(0, i, box=box) for i, box in enumerate(boxes, 1)]  # type: ignore[arg-type]
    segmenter = Segmenter(build_tracker(options.tracker), sam, Refiner(sam), prompts=prompts, batch=1)
    segmenter.start(VideoInfo(width, height, source.info.fps))
    session = Session(tracker=options.tracker, model=sam)
    times: list[tuple[float, float]] = []
    for frame in source:
        if frame.index == 0:
            segmenter.step([frame])
            session.step(frame)
            for box in boxes:
                session.add(box=box)
            continue
        calls = {"engine": lambda f=frame: segmenter.step([f]), "session": lambda f=frame: session.step(f)}
        order = ("engine", "session") if frame.index % 2 else ("session", "engine")
        seconds = {name: timed(calls[name]) for name in order}
        times.append((seconds["engine"], seconds["session"]))
    source.close()
    times = times[WARM_UP:]
    engine, both = median(e for e, _ in times), median(s for _, s in times)
    more = median(s - e for e, s in times)
    low, ratio, high = quantiles((s / e for e, s in times), n=4)
    print(f"{len(times)} steps, CPU time: Segmenter.step {1000 * engine:.1f} ms, Session.step {1000 * both:.1f} ms")
    print(f"a session takes {1000 * more:+.2f} ms more per step (median of differences)")
    print(f"ours / reference: {ratio:.4f} (median of neighbours; quartiles {low:.4f} to {high:.4f})")


if __name__ == "__main__":
    main()
