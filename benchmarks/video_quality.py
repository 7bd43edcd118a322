"""J&F of whole runs on clips with ground truth: the first mask is given, the rest is followed.

    python benchmarks/video_quality.py DATA [--clips dev|all|NAME...] [--refine none auto box] [--tracker xmem]
        [--dtype float32 bfloat16 float16]

DATA holds one folder per clip with frames/ and masks/ (DAVIS palette). Every run goes through `run_video` with
`--mask`, as a user would start it, and its DAVIS PNGs through the DAVIS 2017 semi-supervised evaluator. Half precision
is rounded as devices with instructions for it do (benchmarks/half_precision.py), so that any CPU can measure it.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import torch
from half_precision import DTYPES, rounded

from vidseg.config import RunConfig
from vidseg.evaluation.davis import evaluate_sequence, statistics
from vidseg.training.splits import dev_clips
from vidseg_pipelines.run import run_video


def j_and_f(clip: Path, options: argparse.Namespace, refine: str, dtype: str) -> tuple[float, float, float]:
    """(J&F in 0..100, what of it is lost from the first to the last quarter, frames per second) of one clip."""
    first = sorted((clip / "masks").glob("*.png"))[0]
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            input=str(clip / "frames"),
            output=Path(folder) / "run",
            mask=(str(first),),
            save="davis",
            refine=refine,  # type: ignore[arg-type]
            zoom=options.zoom,
            tracker=options.tracker,
            model=options.model,
            dtype=dtype,  # type: ignore[arg-type]
            tracker_option=tuple(options.tracker_option),
        )
        with rounded(dtype):
            summary = run_video(config)
        scores = evaluate_sequence(clip / "masks", Path(folder) / "run" / "davis")
    drift = np.mean([statistics(values).decay for values in (*scores.j, *scores.f)])
    return 100 * float(np.mean([np.mean(scores.j), np.mean(scores.f)])), 100 * float(drift), summary.fps


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clips", nargs="+", default=["dev"])
    parser.add_argument("--refine", nargs="+", default=["none", "auto", "box"])
    parser.add_argument("--zoom", default="auto", choices=("auto", "always", "never"))
    parser.add_argument("--tracker", default="xmem")
    parser.add_argument("--tracker-option", action="append", default=[])
    parser.add_argument("--model", default="compact")
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=DTYPES)
    options = parser.parse_args()
    torch.set_num_threads(1)  # with several, a run has a thread of its own for the masks, where nothing is rounded
    modes = list(product(options.refine, options.dtype))
    titles = [refine if len(options.dtype) == 1 else f"{refine} {dtype}" for refine, dtype in modes]
    names = {
        "dev": lambda: dev_clips(options.data),
        "all": lambda: tuple(sorted(p.name for p in options.data.iterdir() if p.is_dir())),
    }.get(options.clips[0], lambda: tuple(options.clips))()
    print(f"{'clip':<32}" + "".join(f"{title:>16}" for title in titles) + "   drift      fps")
    rows, drifts = [], []
    for name in names:
        results = [j_and_f(options.data / name, options, *mode) for mode in modes]
        rows.append([score for score, _, _ in results])
        drifts.append([drift for _, drift, _ in results])
        extra = " ".join(f"{drift:5.1f}" for drift in drifts[-1]) + "   " + " ".join(f"{r[2]:5.2f}" for r in results)
        print(f"{name:<32}" + "".join(f"{score:16.2f}" for score in rows[-1]) + f"   {extra}", flush=True)
    table = np.array(rows)
    print(f"{'mean of ' + str(len(names)):<32}" + "".join(f"{v:16.2f}" for v in table.mean(0)))
    print(f"{'lost from first to last quarter':<32}" + "".join(f"{v:16.2f}" for v in np.mean(drifts, axis=0)))
    for column, title in enumerate(titles[1:], start=1):
        worst = int((table[:, column] - table[:, 0]).argmin())
        change = table[worst, column] - table[worst, 0]
        print(f"{title} against {titles[0]}: worst clip {names[worst]} {change:+.1f}")


if __name__ == "__main__":
    main()
