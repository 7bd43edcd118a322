"""A process in which commands run under watch: memory is measured, or nobody can reach the network.

Reads a json list of argument lists from standard input; answers with a json list of {code, err, mb, network}: exit
code, what was said on standard error, how far the peak of memory stands above where it was at the beginning, and
attempts to use the network. With the argument "no-network" every socket, name look-up and connection fails.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

from vidseg_pipelines.cli import COMMANDS, find_command, main

attempts: list[str] = []


def commands_in_child(commands: list[list[str]], *arguments: str, **environment: str) -> list[dict[str, Any]]:
    """For tests: run this file with commands; returns its answers."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        check=True,
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def refuse(event: str, details: tuple[object, ...]) -> None:
    if event.startswith("socket."):
        attempts.append(f"{event}{details}")
        raise OSError("no network here")


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(arguments: list[str]) -> tuple[int, str]:
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        code = main(arguments)
    return code, told.getvalue()


if __name__ == "__main__":
    # What commands import is no memory that inputs take.
    for name in COMMANDS:
        find_command(name)
    for module in ("run", "batch.jobs", "batch.supervisor", "commands.image_files", "reproduce.run"):
        importlib.import_module(f"vidseg_pipelines.{module}")
    if sys.argv[1:] == ["no-network"]:
        sys.addaudithook(refuse)
        time.sleep = lambda seconds: None  # between attempts at a download
    before = peak_mb()
    answers = []
    for arguments in json.loads(sys.stdin.read()):
        attempts.clear()
        code, told = run(arguments)
        answers.append({"code": code, "err": told, "mb": peak_mb() - before, "network": list(attempts)})
    print(json.dumps(answers))
