"""A process that forks toy runs and lets them die by SIGKILL at a named moment, also in the middle of a write.

Reads one json command per line: the fields of a run, and how it dies. ``{"kill": [LABEL, N]}``: at the N-th event of
that label; a write is cut in half first. ``{"after": SECONDS}``: from outside. Neither: never. With
``{"going_on": SETTINGS}`` the settings are those of the run in the folder and these. Answers with one json line: exit
code (-9: killed), seconds and, for runs that end by themselves, how often each label came by.
Forks are cheap: torch is imported once.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save, save_file

from toys import KeepMasks, tiny_sam
from vidseg.config import RunConfig, from_mapping
from vidseg.errors import VidsegError
from vidseg_pipelines import snapshot
from vidseg_pipelines.continuation import settings_with
from vidseg_pipelines.run import Loaders, run_video


class KillSwitch:
    """Counts events by label and kills its process at one of them."""

    def __init__(self, kill: tuple[str, int] | None) -> None:
        self.counts: Counter[str] = Counter()
        self._kill, self._lock = kill, threading.Lock()

    def event(self, label: str) -> bool:
        """True when this is the moment."""
        with self._lock:
            self.counts[label] += 1
            return (label, self.counts[label]) == self._kill

    def pass_or_die(self, label: str) -> None:
        if self.event(label):
            os.kill(os.getpid(), signal.SIGKILL)


class TappedFile:
    """A file opened for writing."""

    def __init__(self, file: Any, name: str, switch: KillSwitch) -> None:
        self._file, self._label, self._switch = file, f"write {name}", switch

    def write(self, data: Any) -> int:
        if self._switch.event(self._label):
            self._file.write(bytes(data)[: len(data) // 2])
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._file.write(data)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> TappedFile:
        return self

    def __exit__(self, *details: object) -> None:
        self._file.close()


def label_of(path: Path) -> str:
    return "png" if ".png" in path.name else re.sub(r"(\.\d+-[0-9a-f]{8})?\.part$", "", path.name)


def tap(switch: KillSwitch) -> None:
    """Put the switch into every place where files change, and into the tracker."""
    path_open, path_replace, path_unlink, truncate, step = (
        Path.open,
        Path.replace,
        Path.unlink,
        os.truncate,
        KeepMasks.step,
    )

    def open_tapped(self: Path, mode: str = "r", *args: Any, **keywords: Any) -> Any:
        file = path_open(self, mode, *args, **keywords)
        return TappedFile(file, label_of(self), switch) if mode in ("xb", "wb", "ab") else file

    def replace_tapped(self: Path, target: Path) -> Path:
        switch.pass_or_die(f"before rename {label_of(self)}")
        result = path_replace(self, target)
        switch.pass_or_die(f"after rename {label_of(self)}")
        return result

    def unlink_tapped(self: Path, missing_ok: bool = False) -> None:
        switch.pass_or_die(f"unlink {label_of(self)}")
        path_unlink(self, missing_ok)

    def truncate_tapped(path: Path, length: int) -> None:
        switch.pass_or_die(f"truncate {label_of(Path(path))}")
        truncate(path, length)
        switch.pass_or_die(f"truncated {label_of(Path(path))}")

    def step_tapped(self: KeepMasks, *args: Any, **keywords: Any) -> Any:
        switch.pass_or_die("frame")
        return step(self, *args, **keywords)

    def save_tapped(tensors: dict[str, torch.Tensor], name: str, metadata: dict[str, str]) -> None:
        if switch.event(f"write {label_of(Path(name))}"):  # safetensors opens the file itself
            data = save(tensors, metadata)
            with path_open(Path(name), "wb") as file:
                file.write(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        save_file(tensors, name, metadata)

    snapshot.save_file = save_tapped
    Path.open, Path.replace, Path.unlink = open_tapped, replace_tapped, unlink_tapped  # type: ignore[assignment,method-assign]
    os.truncate, KeepMasks.step = truncate_tapped, step_tapped  # type: ignore[assignment,method-assign]


def run(command: dict[str, Any], report: int) -> int:
    kill = command.get("kill")
    switch = KillSwitch(tuple(kill) if kill else None)  # type: ignore[arg-type]
    tap(switch)
    config = RunConfig(
        input=command["video"],
        output=Path(command["output"]),
        mask=(command["mask"],),
        save="davis,ytvis,coco,mots,overlay,report",
        refine="box",
        tracker=command.get("tracker", "xmem"),
        tracker_options=command.get("tracker_options", {}),
        snapshot_every=4,
        resume=not command.get("overwrite"),
        overwrite=bool(command.get("overwrite")),
        **{name: tuple(texts) for name, texts in command.get("said", {}).items()},
        keep_states=command.get("keep_states", 0),
    )
    if "going_on" in command:
        settings = settings_with(Path(command["output"]), command["going_on"])
        config = from_mapping(RunConfig, settings, where="settings")
    try:
        real = Loaders(lambda config: tiny_sam())
        run_video(config, loaders=real if "tracker" in command else replace(real, tracker=lambda config: KeepMasks()))
    except VidsegError as error:
        os.write(report, json.dumps({"error": str(error)}).encode())
        return error.exit_code
    os.write(report, json.dumps({"events": switch.counts}).encode())
    return 0


def fork(command: dict[str, Any]) -> dict[str, Any]:
    reader, writer = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            code = run(command, writer)
        finally:
            os._exit(code)
    os.close(writer)
    if "after" in command:
        time.sleep(command["after"])
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    answer = {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - started}
    return {**answer, **json.loads(told or b"{}")}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(fork(json.loads(line))), flush=True)
