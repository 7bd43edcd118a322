"""Train both embedded models further, in the minutes that there are, from packed data.

    bash benchmarks/train_gpu.sh                                    # nine minutes on one GPU
    python benchmarks/train_gpu.py build/training-data.zip --out build/trained --device cpu --minutes 4 --small

Starts from the embedded weights: the tracker with the recipe xmem-compact, then SAM and the HQ parts together with the
recipe compact-whole. A few steps of each recipe say how many fit into its share of the time; the learning rate falls to
the end of these. The weights are in OUT/tracker and OUT/image; see docs/model-card.md for how to measure them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import yaml

RECIPES = Path(__file__).parents[1] / "configs" / "training"
SHARES = {"tracker": 0.5, "image": 1.0}
"""Of the time that is left when the stage begins."""
PROBE = 12
"""Steps that are timed; the first half warms up."""
STARTUP_S = 25.0
"""Kept for reading the data and writing the weights."""


def tracker_recipe(data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """compact-xmem, further: longer sequences, corrected frames, objects that leave and return."""
    recipe = yaml.safe_load((RECIPES / "xmem-compact.yaml").read_text())
    size, length, batch = (64, 4, 2) if options.small else (256, 8, 12)
    stage = {"size": size, "length": length, "batch": batch, "clip_fraction": 0.65, "max_skip": 4}
    recipe |= {
        **{"data": str(data), "start": "compact-xmem", "threads": 0, "workers": options.workers, "log_every": 2},
        **{"dtype": options.dtype, "frozen_trunk_stages": 2, "bootstrap_start": 0.0, "bootstrap_end": 0.1},
        "stages": [stage | {"given_chance": 0.4, "leave_chance": 0.12}],
    }
    recipe.pop("network")
    return recipe  # type: ignore[no-any-return]


def image_recipe(data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """compact, further: all of it learns."""
    recipe = yaml.safe_load((RECIPES / "compact-whole.yaml").read_text())
    recipe |= {
        **{"start": "compact", "threads": 0, "workers": options.workers},
        **{"autocast": "none" if options.dtype == "float32" else options.dtype},
        "images_per_batch": 1 if options.small else 16,
    }
    recipe["scenes"] |= {"root": str(data)}
    recipe["loop"] |= {"lr": 5e-4, "warmup": 50, "ema": 0.998, "log_every": 2}
    return recipe  # type: ignore[no-any-return]


def with_steps(recipe: dict[str, Any], steps: int) -> dict[str, Any]:
    """The recipe for so many steps, saved five times."""
    often = max(1, steps // 5)
    if "loop" in recipe:
        scenes = recipe["scenes"] | ({"held_out": 0} if steps == PROBE else {})  # nothing to validate on
        return recipe | {"loop": recipe["loop"] | {"steps": steps, "save_every": often}, "scenes": scenes}
    return recipe | {"stages": [recipe["stages"][0] | {"iterations": steps}], "checkpoint_every": often}


def train(kind: str, recipe: dict[str, Any], folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run `vidseg train`; the lines of its log."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = folder.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "vidseg", "train", kind, "--config", str(config), "--output", str(folder)]
    subprocess.run([*command, "--device", options.device], check=True)
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def main() -> None:
    """Both models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="what pack_training_data.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1) - 2))
    parser.add_argument("--small", action="store_true", help="small batches, to try this script without a GPU")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    data = options.out / "data"
    with zipfile.ZipFile(options.data) as archive:
        archive.extractall(data)
    for name, kind, recipe in (
        ("tracker", "xmem", tracker_recipe(data, options)),
        ("image", "hq", image_recipe(data, options)),
    ):
        probe = train(kind, with_steps(recipe, PROBE), options.out / f"{name}-probe", options)
        seconds = min(line["seconds"] for line in probe[len(probe) // 2 :] if "seconds" in line)
        left = (end - time.monotonic()) * SHARES[name] - STARTUP_S
        steps = int(left / seconds)
        print(f"{name}: {seconds:.3f} s a step, {steps} steps in {left:.0f} s", flush=True)
        if steps < PROBE:
            raise SystemExit(f"{name}: not enough time; give more --minutes")
        train(kind, with_steps(recipe, steps), options.out / name, options)
        shutil.rmtree(options.out / f"{name}-probe")
        (options.out / name / "last.pt").unlink(missing_ok=True)
    shutil.rmtree(data)


if __name__ == "__main__":
    main()
