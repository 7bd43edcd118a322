"""What ``vidseg doctor`` looks at."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from vidseg.registry import KINDS, broken_plugins, installed, package_of
from vidseg.weights.catalog import CATALOG, Entry, find_local, weights_folder

_PACKAGES = ("torch", "numpy", "av", "opencv-python-headless", "pycocotools", "safetensors", "pillow")
_EXTRAS = {  # extra: a module of it
    "ui": "starlette",
    "serve": "fastapi",
    "hf": "transformers",
    "train": "tensorboard",
    "parquet": "pyarrow",
    "cloud": "s3fs",
    "onnx": "onnxruntime",
    "ray": "ray",
    "slurm": "submitit",
    "metrics": "prometheus_client",
    "cvat": "cvat_sdk",
    "cascadepsp": "segmentation_refinement",
    "decord": "decord",
    "torchcodec": "torchcodec",
}
_ENCODERS = {  # what is written: FFmpeg's encoders for it, and what happens without
    "overlay.mp4": (("libx264", "h264"), "mpeg4 is used"),
    "cutout.webm": (("libvpx-vp9",), "--save cutout-webm fails"),
    "sound": (("aac",), "sound that MP4 cannot hold is left out"),
}
_LITTLE_DISK = 2e9
_BASE_MEMORY = 1e9
_WEIGHTS_IN_MEMORY = 3
"""Memory per byte of weights: the weights, and what is computed with them. An estimate."""


@dataclass(frozen=True)
class Check:
    """One line: ``failed`` means that vidseg does not work here, ``note`` that something is limited."""

    name: str
    state: Literal["ok", "note", "failed"]
    value: str


def checks(model: Entry, folder: Path, *, run: bool = True) -> Iterator[Check]:
    """All checks; ``model`` is the one whose memory is looked at, ``folder`` is for results."""
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in _PACKAGES:
        found = _version(name)
        yield Check(name, "ok" if found else "note", found or f"not found: pip install {name}")
    yield from _codecs()
    yield from _devices()
    for kind in KINDS:
        yield Check(f"{kind}s", "ok", ", ".join(_with_package(kind, name) for name in installed(kind)))
    for line in broken_plugins():
        yield Check("broken plug-in", "note", line)
    for extra, module in _EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        yield Check(f"extra {extra}", "ok", "installed" if there else f"pip install 'vidseg[{extra}]'")
    yield _weights()
    yield _memory(model)
    for name, place in (("results", folder), ("weights", weights_folder())):
        yield _disk(name, place)
    if run:
        yield _two_frames()


def _codecs() -> Iterator[Check]:
    import av

    libraries = ", ".join(f"{k} {'.'.join(map(str, v))}" for k, v in sorted(av.library_versions.items()))
    yield Check("ffmpeg", "ok", libraries)
    for name, (encoders, without) in _ENCODERS.items():
        found = [encoder for encoder in encoders if encoder in av.codecs_available]
        lacking = f"none of {', '.join(encoders)}: {without}"
        yield Check(f"encoder of {name}", "ok" if found else "note", found[0] if found else lacking)


def _devices() -> Iterator[Check]:
    import torch

    yield Check("cpu", "ok", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()}")
    yield Check("cpu features", "ok", torch.backends.cpu.get_cpu_capability())
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    yield Check("cuda", "ok", ", ".join(f"{gpu.name} ({gpu.total_memory / 1e9:.0f} GB)" for gpu in gpus) or "no device")
    yield Check("mps", "ok", "yes" if torch.backends.mps.is_available() else "no")


def _weights() -> Check:
    here = [name for name in CATALOG if find_local(name)]
    missing = [name for name, entry in CATALOG.items() if entry.embedded and name not in here]
    if missing:
        return Check("weights here", "failed", f"the embedded {', '.join(missing)} are missing: install vidseg again")
    return Check("weights here", "ok", ", ".join(here))


def _memory(model: Entry) -> Check:
    path = find_local(model.name)
    size = path.stat().st_size if path else model.size
    free = _free_memory()
    if free is None or size is None:
        return Check("memory", "ok", "unknown")
    need = _BASE_MEMORY + _WEIGHTS_IN_MEMORY * size
    text = f"{free / 1e9:.1f} GB free; {model.name} takes about {need / 1e9:.1f} GB (estimated)"
    return Check("memory", "ok" if free > need else "note", text)


def _free_memory() -> float | None:
    """Bytes that programs can still take, where the system tells."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _disk(name: str, folder: Path) -> Check:
    """Whether files can be written to a folder, or where it would be made, and how much fits."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".vidseg-", suffix=".part") as file:
            file.write(b"test")
            file.flush()
        free = shutil.disk_usage(there).free
    except OSError as error:
        state: Literal["note", "failed"] = "failed" if name == "results" else "note"
        return Check(f"folder of {name}", state, f"{folder}: cannot be written ({error.strerror})")
    return Check(f"folder of {name}", "ok" if free > _LITTLE_DISK else "note", f"{folder}: {free / 1e9:.1f} GB free")


def _two_frames() -> Check:
    """Segment two frames with the embedded models: everything but files."""
    import numpy as np

    from vidseg_pipelines.api import segment_frames

    frames = [np.full((96, 128, 3), 200, np.uint8) for _ in range(2)]
    for frame, x in zip(frames, (40, 44), strict=True):
        frame[30:70, x : x + 40] = (180, 40, 40)
    try:
        results = list(segment_frames(frames, box=["40,30,80,70"], device="cpu", offline=True))
    except Exception as error:
        return Check("run of two frames", "failed", f"{type(error).__name__}: {error}")
    areas = [int((result.label_map > 0).sum()) for result in results]
    state: Literal["ok", "failed"] = "ok" if len(areas) == 2 and all(areas) else "failed"
    return Check("run of two frames", state, f"masks of {' and '.join(map(str, areas))} pixels")


def _with_package(kind: str, name: str) -> str:
    package = package_of(kind, name)
    return f"{name} ({package})" if package else name


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
