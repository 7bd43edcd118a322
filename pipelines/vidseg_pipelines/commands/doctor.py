"""``vidseg doctor``: what a bug report needs, and whether the installation can work."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from vidseg import __version__
from vidseg.registry import KINDS, broken_plugins, installed, package_of
from vidseg.weights.catalog import CATALOG, find_local


@dataclass(frozen=True)
class DoctorCommand:
    """Show versions, devices, codecs and weights. Exit code 4 when the embedded weights are missing."""

    def run(self) -> int:
        """Print the table; returns the exit code."""
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"vidseg {__version__}", show_header=False, title_justify="left")
        for name, value in _rows():
            table.add_row(name, value)
        Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(table)
        return 0 if all(find_local(name) for name, entry in CATALOG.items() if entry.embedded) else 4


def _rows() -> list[tuple[str, str]]:
    import av
    import torch

    packages = ("torch", "numpy", "av", "opencv-python-headless", "pycocotools", "safetensors", "pillow")
    rows = [("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    rows += [(name, _version(name)) for name in packages]
    rows.append(("ffmpeg", ", ".join(f"{k} {'.'.join(map(str, v))}" for k, v in sorted(av.library_versions.items()))))
    rows.append(
        ("h264 encoder", next((c for c in ("libx264", "h264") if c in av.codecs_available), "none: mpeg4 is used"))
    )
    rows.append(("cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()}"))
    rows.append(("cpu features", torch.backends.cpu.get_cpu_capability()))
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    rows.append(("cuda", ", ".join(gpus) or "no device"))
    rows.append(("mps", "yes" if torch.backends.mps.is_available() else "no"))
    rows += [(f"{kind}s", ", ".join(_with_package(kind, name) for name in installed(kind))) for kind in KINDS]
    rows += [("broken plug-in", line) for line in broken_plugins()]
    found = [name for name in CATALOG if find_local(name)]
    rows.append(("weights here", ", ".join(found) or "none"))
    return rows


def _with_package(kind: str, name: str) -> str:
    package = package_of(kind, name)
    return f"{name} ({package})" if package else name


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
