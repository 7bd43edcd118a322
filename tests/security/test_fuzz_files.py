"""Mutated files of every foreign kind raise nothing but errors of ours; for longer: make fuzz."""

from __future__ import annotations

from pathlib import Path

from fuzz_files import fuzz
from vidseg.annotations import READERS


def test_mutated_files_raise_nothing_else(tmp_path: Path) -> None:
    results = fuzz(tmp_path, iter(range(40)))
    kinds = {name for name, _ in results}
    assert len(kinds) >= 27 and {f"from-{name}" for name in READERS} <= {name.partition(".")[0] for name in kinds}
    assert all(results[name, False] for name in kinds), results  # no reader takes everything
    assert sum(count for (_, read), count in results.items() if read) > 40
