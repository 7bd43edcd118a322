"""What SAM and HQ-SAM cost on the machine at hand: parameters, frames per second, peak memory (table 1, figure 2)."""

from __future__ import annotations

import platform
import resource
import statistics
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from vidseg.errors import UsageError
from vidseg.loading import load_sam
from vidseg.sam.build import build_sam, place_sam
from vidseg.sam.config import SamConfig, named_config
from vidseg.sam.model import Sam
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.text import read_json
from vidseg.training.parts import PREFIXES
from vidseg.weights.catalog import CATALOG

MIB = 2**20
PRINTED = {"SAM": (1191.0, 5.0, 7.6), "HQ-SAM": (5.1, 4.8, 7.6)}
"""Table 1 of the paper, ViT-L: learnable parameters in MiB of float32, frames per second, memory in GB."""


@dataclass(frozen=True)
class Cost:
    """What one network costs: parameters in MiB of float32, seconds per frame with one box, peak memory in MiB."""

    learnable_mib: float
    total_mib: float
    fps: float
    peak_mib: float


def config_of(model: str) -> SamConfig:
    """The sizes of a model, without its weights where its name tells them.

    Raises:
        UsageError: a SAM 2. WeightsError: a file that cannot be read.
    """
    if model in CATALOG and CATALOG[model].family == "sam" and not CATALOG[model].embedded:
        return named_config(model)
    sam = load_sam(model)
    if not isinstance(sam, Sam):
        raise UsageError(f"{model} is a SAM 2: table 1 and figure 2 compare SAM and HQ-SAM")
    return sam.config


def sam_and_hq(model: str) -> dict[str, SamConfig]:
    """The SAM and the HQ-SAM of a model's size.

    Raises:
        UsageError: a plain SAM, which has no other half.
    """
    config = config_of(model)
    if not config.hq:
        raise UsageError(f"{model} is a plain SAM: name the HQ-SAM of its size, such as sam-hq-vit-l")
    return {
        "SAM": replace(config, hq=False, output="sam", hq_mix=False, hq_pyramid=False, hq_attends=False),
        "HQ-SAM": config,
    }


def parameters_of(config: SamConfig) -> tuple[float, float]:
    """(learnable, all) parameters in MiB of float32: of an HQ-SAM its HQ parts learn, of a SAM everything does."""
    with torch.device("meta"):
        parameters = dict(build_sam(replace(config, objectness=False)).named_parameters())
    counts = {name: 4 * parameter.numel() / MIB for name, parameter in parameters.items()}
    learnable = sum(size for name, size in counts.items() if not config.hq or name.startswith(PREFIXES["hq"]))
    return learnable, sum(counts.values())


def measure_cost(config: SamConfig, device: torch.device, dtype: torch.dtype, frames: int) -> Cost:
    """The cost of a network with random weights, which change none of it, in a process of its own.

    A frame is one image of the network's size, encoded, with the mask of one box.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, config, device, dtype, frames).result()


def _measure(config: SamConfig, device: torch.device, dtype: torch.dtype, frames: int) -> Cost:
    sam = place_sam(build_sam(replace(config, objectness=False)).eval(), device, dtype)
    side = config.image_size
    image = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    prompts = [PromptBatch(boxes=np.array([[0.2, 0.2, 0.8, 0.7]], np.float32) * side)]
    seconds = []
    for _ in range(frames + 1):
        began = time.perf_counter()
        (masks,) = sam.decode(sam.encode([image]), prompts)
        masks.upsampled()[0, 0, 0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - began)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / MIB
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB
    return Cost(*parameters_of(config), 1 / statistics.median(seconds[1:]), peak)


def describe_machine(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Device, dtype and kind of CPU or GPU."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()
    threads = str(torch.get_num_threads())
    return {"device": str(device), "dtype": str(dtype).removeprefix("torch."), "kind": kind, "threads": threads}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def content_of(costs: Mapping[str, Cost], machine: Mapping[str, str], model: str, frames: int) -> dict[str, Any]:
    """All of it, json-ready, with the paper's numbers for ViT-L."""
    rows = {name: {**asdict(cost), "paper": PRINTED[name]} for name, cost in costs.items()}
    return {"model": model, "machine": dict(machine), "frames": frames, "rows": rows}


def read_qualities(folder: Path) -> dict[str, tuple[str, float]]:
    """Metric and value (0..100) by model and mask, from the score files below ``folder``: AP on COCO, else mIoU."""
    found: dict[str, tuple[str, float]] = {}
    for path in sorted(folder.rglob("score.json")):
        content = read_json(path)
        model = content.get("protocol", {}).get("model")
        wanted = {"coco": ("mask", "AP"), "hq44k-val": ("average", "mIoU")}.get(content.get("benchmark"))
        if not model or wanted is None:
            continue
        for name, scores in content["scores"].items():
            value = scores.get(wanted[0], {}).get(wanted[1])
            label = f"{model}, {name}"
            better = label not in found or wanted[1] == "AP"
            if value is not None and better:
                found[label] = ("AP (COCO)" if wanted[1] == "AP" else "mIoU (four sets)", 100 * value)
    return found


def draw_qualities(points: Mapping[str, tuple[float, float, float]], metric: str) -> Image.Image:
    """A chart: frames per second to the right (in doublings), quality upwards, a disc as large as the parameters.

    ``points``: (frames per second, quality 0..100, MiB) by name.
    """
    image = Image.new("RGB", (800, 560), "white")
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = 80, 50, 760, 490
    speeds = np.log2([p[0] for p in points.values()])
    low, high = np.floor(speeds.min()), max(np.ceil(speeds.max()), np.floor(speeds.min()) + 1)
    values = [p[1] for p in points.values()]
    worst, best = 5 * np.floor(min(values) / 5), 5 * np.floor(max(values) / 5) + 5
    for step in range(int(low), int(high) + 1):
        x = left + (right - left) * (step - low) / (high - low)
        draw.line((x, top, x, bottom), fill="#dddddd")
        draw.text((x, bottom + 6), f"{2.0**step:g}", fill="black", anchor="ma")
    for value in np.linspace(worst, best, 6):
        y = bottom - (bottom - top) * (value - worst) / (best - worst)
        draw.line((left, y, right, y), fill="#dddddd")
        draw.text((left - 6, y), f"{value:.0f}", fill="black", anchor="rm")
    draw.rectangle((left, top, right, bottom), outline="black")
    draw.text(((left + right) / 2, bottom + 36), "frames per second", fill="black", anchor="mm")
    draw.text((left, top - 8), metric, fill="black", anchor="ls")
    largest = max(p[2] for p in points.values())
    for name, (fps, quality, size) in points.items():
        x = left + (right - left) * (np.log2(fps) - low) / (high - low)
        y = bottom - (bottom - top) * (quality - worst) / (best - worst)
        r = 4 + 20 * (size / largest) ** 0.5
        colour = "#1f77b4" if name.endswith(", sam") else "#d62728"
        draw.ellipse((x - r, y - r, x + r, y + r), outline=colour, width=3)
        draw.text((x, y - r - 4), f"{name} ({size:.0f} MiB)", fill=colour, anchor="mb")
    return image
