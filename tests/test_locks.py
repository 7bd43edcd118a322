"""Locks between processes, also those that die, and files that several processes write at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vidseg.atomic_files import atomic_file, clear_parts
from vidseg.errors import OutputError, UsageError
from vidseg.locks import file_lock
from vidseg.names import is_part, part_of

HOLD = """
import sys, time
from pathlib import Path
from vidseg.locks import file_lock
with file_lock(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_is_held_by_one_process_and_freed_when_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match="in use"), file_lock(path, "in use"):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with file_lock(path, "in use"):
        pass


def test_a_lock_keeps_out_its_own_process_too_and_may_go_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    for keep in (True, False):
        with file_lock(path, "in use", keep=keep), pytest.raises(UsageError, match="in use"), file_lock(path, "in use"):
            pass
        assert path.exists() is keep


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    (tmp_path / "a.lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match=r"a\.lock: cannot write: "), file_lock(tmp_path / "a.lock"):
        pass


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    with atomic_file(path) as first:
        first.write(b"one, ")
        with atomic_file(path) as second:
            second.write(b"two")
        assert path.read_bytes() == b"two"
        first.write(b"whole")
    assert path.read_bytes() == b"one, whole"
    assert [p.name for p in tmp_path.iterdir()] == ["summary.csv"]


def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("\N{LATIN SMALL LETTER E WITH ACUTE}" * 125 + ".json")
    with atomic_file(path) as file:
        file.write(b"[]")
    assert path.read_bytes() == b"[]"


def test_only_partial_files_of_ours_are_cleared(tmp_path: Path) -> None:
    ours, theirs = part_of(tmp_path / "a.png"), [tmp_path / name for name in ("a.png", "film.part", "b.12-34.part")]
    assert is_part(ours)
    for path in [ours, *theirs]:
        path.touch()
    clear_parts(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(theirs)
