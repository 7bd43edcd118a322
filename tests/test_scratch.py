"""Data on the disk for a moment: the last one first out, and nothing stays."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vidseg.errors import OutputError
from vidseg.scratch import ScratchStack


def test_the_last_string_comes_out_first_and_its_room_is_given_back(tmp_path: Path) -> None:
    with ScratchStack(tmp_path) as stack:
        assert stack.pop() is None
        stack.push(b"first")
        stack.push(np.arange(6, dtype=np.uint8).reshape(2, 3), b"tail")
        found = stack.pop()
        assert found is not None and found.tobytes() == bytes(range(6)) + b"tail" and found.flags.writeable
        assert os.fstat(stack._file.fileno()).st_size == 5 + 8
        stack.push(b"")
        for expected in (b"", b"first"):
            found = stack.pop()
            assert found is not None and found.tobytes() == expected
        assert stack.pop() is None
        assert os.fstat(stack._file.fileno()).st_size == 0


def test_a_process_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys, signal; from pathlib import Path; from vidseg.scratch import ScratchStack\n"
        "stack = ScratchStack(Path(sys.argv[1])); stack.push(b'x' * 100000); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, file: object) -> None:
            self.file, self.fails = file, False

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def write(self, data: bytes) -> int:
            if self.fails:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self.file.write(data))  # type: ignore[attr-defined]

    with ScratchStack(tmp_path) as stack:
        stack._file = Full(stack._file)  # type: ignore[assignment]
        stack.push(bytes(5_000_000))
        stack._file.fails = True  # type: ignore[attr-defined]
        text = f"^{tmp_path}: cannot write: the disk is full, with 5 MB of temporary data there$"
        with pytest.raises(OutputError, match=text):
            stack.push(b"more")
    with pytest.raises(OutputError, match="cannot write: No such file"):
        ScratchStack(tmp_path / "gone")


def test_without_a_folder_it_lies_where_the_system_keeps_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match="gone: cannot write"):
        ScratchStack()
