"""Videos as rows of a Ray dataset (the extra ``ray``): Ray schedules, retries, scales and spills.

import ray
from vidseg_pipelines.batch.ray import map_videos

videos = ray.data.read_csv("jobs.csv")  # a column "input", and others of a manifest
results = map_videos(videos, output="/shared/runs", concurrency=(1, 8), num_gpus=0.5)
results.filter(lambda row: row["status"] == "failed").show()
"""

from __future__ import annotations

import dataclasses
import os
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.config import RunConfig
from vidseg.errors import InputError, VidsegError
from vidseg.names import safe_name
from vidseg.runtime import loses_device
from vidseg.storage import Storage, object_url
from vidseg_pipelines.batch.inputs import COLUMNS, common_settings, read_cell, request_of
from vidseg_pipelines.batch.worker import MAX_DEATHS, patiently, refuse_live, remembering
from vidseg_pipelines.remote_folder import folder_at
from vidseg_pipelines.run import Loaders, run_video


def map_videos(
    dataset: Any,
    config: RunConfig | None = None,
    *,
    output: str | os.PathLike[str],
    concurrency: int | tuple[int, int] = 1,
    loaders: Loaders | None = None,
    **options: Any,
) -> Any:
    """Segment the videos of a ``ray.data.Dataset`` on a pool of actors that hold the models; a lazy dataset of results.

    Rows have the columns of a manifest of ``vidseg batch``: ``input`` and, as far as they are needed, ``output`` (the
    name of a folder; default: that of the video), ``box``, ``point``, ``mask``, ``frames``, ... Texts are read as the
    cells of a CSV file are (``;`` between several prompts). Other columns pass by. A row of the result has besides:
    ``folder``, ``status`` ("done", "partial" or "failed"), ``reason``, ``objects``, ``frames_done`` and ``seconds``.

    A video whose actor or node dies is done again by another, from its last snapshot, and has failed when that happened
    three times; one that fails is a row with its reason; one that is done already is not done again. So ``output`` is a
    folder that all nodes have in common, or a URL of object storage, and the folders of two rows must differ.

    Args:
        dataset: the videos; relative paths are looked for in the current folder.
        config: settings of all videos.
        output: folder for one folder per video.
        concurrency: actors, or the least and the most of them.
        loaders: give the models; pickled.
        options: of ``Dataset.map``, such as ``num_gpus`` (a fraction shares a GPU) and ``num_cpus`` per actor.

    Raises:
        UsageError: wrong settings. What a single video raises is in its row.
    """
    config = common_settings(config or RunConfig())
    config.check()
    place = object_url(Path(output)) or os.path.abspath(output)  # noqa: PTH100  (links keep their names)
    return dataset.map(
        VideoMapper,
        fn_constructor_args=(config, place, str(Path.cwd()), loaders or Loaders()),
        concurrency=concurrency,
        **options,
    )


class VideoMapper:
    """An actor of :func:`map_videos`."""

    def __init__(self, config: RunConfig, output: str, folder: str, loaders: Loaders) -> None:
        """No model is loaded before the first video. Paths in rows are relative to ``folder``."""
        self._config, self._output, self._folder = config, Path(output), Path(folder)
        self._loaders = remembering(loaders, None)
        self._device_lost = False

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A video."""
        if self._device_lost:
            os._exit(1)  # every call of the device would fail: Ray starts another actor for this row
        begun = time.perf_counter()
        given = _cells(row)
        name = safe_name(str(given.get("output") or Path(str(given.get("input"))).stem))
        folder = object_url(self._output / name) or str(self._output / name)
        result = {**row, "folder": folder, "status": "failed", "reason": "", "objects": 0, "frames_done": 0}
        attempts = Attempts(self._output, name)
        try:
            request = request_of(given, self._config, self._folder, "map_videos")
            deaths = attempts.begin()
            if deaths >= MAX_DEATHS:
                raise InputError(f"{deaths} actors died while they were at it (killed, out of memory?)")
            there = folder_at(folder).read_manifest() is not None
            config = dataclasses.replace(request.config, output=Path(folder), resume=there)
            summary = patiently(lambda: run_video(config, loaders=self._loaders, on_open=refuse_live), deaths)
            result |= {"status": summary.status, "reason": "; ".join(summary.warnings)}
            result |= {"objects": len(summary.objects), "frames_done": summary.frames}
        except VidsegError as error:
            result["reason"] = " ".join(str(error).split())
        except Exception as error:
            self._device_lost = loses_device(error)
            last = traceback.extract_tb(error.__traceback__)[-1]
            result["reason"] = f"internal error: {type(error).__name__}: {error} ({last.filename}:{last.lineno})"
        attempts.end()
        return result | {"seconds": time.perf_counter() - begun}


class Attempts:
    """How many attempts at a video have not ended: a small file beside the folders of the videos, while there are."""

    def __init__(self, output: Path, name: str) -> None:
        """``name``: the video's folder in ``output``."""
        url = object_url(output)
        self._storage = None if url is None else Storage(url)
        self._file, self._name = output / ".attempts" / name, f".attempts/{name}"

    def begin(self) -> int:
        """Another attempt begins; returns how many before it have not ended: whose actors have died."""
        if self._storage is not None:
            before = int(self._storage.read(self._name) or b"0")
            self._storage.put(self._name, str(before + 1).encode())
            return before
        before = int(self._file.read_text()) if self._file.exists() else 0
        make_folder(self._file.parent)
        with atomic_file(self._file) as file:
            file.write(str(before + 1).encode())
        return before

    def end(self) -> None:
        """The attempt has ended, well or not."""
        if self._storage is not None:
            self._storage.delete([self._name])
        else:
            self._file.unlink(missing_ok=True)


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of the video, without its empty cells, for which tables have nothing, no text, or NaN."""
    cells = {}
    for column in COLUMNS:
        value = row.get(column)
        value = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        if value is not None and value != "" and value == value:
            cells[column] = read_cell(column, value) if isinstance(value, str) else value
    return cells
