"""One video, from its configuration to its output folder: what ``vidseg run`` and ``segment_video`` do."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg import __version__
from vidseg.config import RunConfig
from vidseg.errors import InputError, OutputError, UsageError
from vidseg.outputs import EXPORTERS, DavisSink, JournalSink, OverlaySink, read_journal, truncate_journal
from vidseg.prompts import parse_prompts
from vidseg.registry import build_tracker
from vidseg.runtime import resolve_device, resolve_dtype
from vidseg.sam.build import load_sam
from vidseg.sam.refiner import Refiner
from vidseg.types import Frame, FrameMasks, Sink, Source, VideoInfo
from vidseg.video import open_source
from vidseg_pipelines.clock import StageClock
from vidseg_pipelines.progress import RunProgress
from vidseg_pipelines.resume import (
    SNAPSHOT,
    Snapshot,
    check_same_run,
    load_snapshot,
    read_manifest,
    save_snapshot,
    write_manifest,
)
from vidseg_pipelines.segmenter import Segmenter
from vidseg_pipelines.streaming import stream

JOURNAL = "masks.jsonl"
OVERLAY = "overlay.mp4"
