"""vidseg: video in, accurate and identity-stable object masks out.

The front door, imported when it is first used (torch is heavy)::

    from vidseg import segment_video, segment_frames, Session, read_run, open_source, load_sam
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from vidseg.errors import InputError, OutputError, PartialError, UsageError, VidsegError, WeightsError

if TYPE_CHECKING:
    from vidseg.loading import load_sam as load_sam
    from vidseg.masks.frame_masks import FrameMasks as FrameMasks
    from vidseg.types import Frame as Frame
    from vidseg.types import Prompt as Prompt
    from vidseg.types import Tracks as Tracks
    from vidseg.video import open_source as open_source
    from vidseg_pipelines.api import read_run as read_run
    from vidseg_pipelines.api import segment_frames as segment_frames
    from vidseg_pipelines.api import segment_video as segment_video
    from vidseg_pipelines.client import Client as Client
    from vidseg_pipelines.session import Session as Session

__version__ = "0.2.0"

_OPENMP_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
if "torch" not in sys.modules and not any(name in os.environ for name in _OPENMP_WAITING):
    # OpenMP reads them once, when torch is loaded. Its threads then wait for each other in a loop for some 0.05 ms and
    # sleep after that: beside another busy process, threads that loop for long take the CPU from the one that they
    # wait for, and threads that sleep at once lose a fifth of the speed of a quiet machine.
    os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "3000"}

_LAZY = {
    "Client": "vidseg_pipelines.client",
    "Session": "vidseg_pipelines.session",
    "read_run": "vidseg_pipelines.api",
    "segment_video": "vidseg_pipelines.api",
    "segment_frames": "vidseg_pipelines.api",
    "load_sam": "vidseg.loading",
    "open_source": "vidseg.video",
    "Frame": "vidseg.types",
    "FrameMasks": "vidseg.masks.frame_masks",
    "Prompt": "vidseg.types",
    "Tracks": "vidseg.types",
}

__all__ = [
    "InputError",
    "OutputError",
    "PartialError",
    "UsageError",
    "VidsegError",
    "WeightsError",
    "__version__",
    *sorted(_LAZY),
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'vidseg' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
