"""What a session costs: ``Session.step`` beside ``Segmenter.step``, on the same frames in one process.

    python benchmarks/session.py VIDEO [--frames N] [--tracker xmem] [--box x1,y1,x2,y2]

Both follow the same objects. They take turns frame by frame, the first one alternating, so that whatever else the
machine does falls on both. Prints the median time per step of each, and the median of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

from vidseg import Session, load_sam, open_source
from vidseg.registry import build_tracker
from vidseg.types import Prompt, VideoInfo
from vidseg_pipelines.refiner import Refiner
from vidseg_pipelines.segmenter import Segmenter


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--tracker", default="xmem")
    parser.add_argument("--box", action="append", default=[])
    options = parser.parse_args()
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
    engine, both = median(e for e, _ in times), median(s for _, s in times)
    ratios = median(s / e for e, s in times), sum(s for _, s in times) / sum(e for e, _ in times)
    print(f"{len(times)} steps: Segmenter.step {1000 * engine:.1f} ms, Session.step {1000 * both:.1f} ms")
    print(f"ours / reference: {ratios[0]:.4f} (median of neighbours), {ratios[1]:.4f} (sums)")


if __name__ == "__main__":
    main()
