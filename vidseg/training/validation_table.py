"""The validations of a training as a table that grows in the terminal, and its last line."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from vidseg.names import printable

_ROW = "%10s  %-5s  %6s  %6s  %12s"


class ValidationTable:
    """Rows of mIoU and mBIoU per kind of mask, with the gain in mBIoU since the first row."""

    def __init__(self) -> None:
        self._log = logging.getLogger("vidseg")
        self._first: Mapping[str, float] = {}
        self._last: Mapping[str, float] = {}

    def add(self, step: int, scores: Mapping[str, float]) -> None:
        """A validation: ``scores`` are named KIND_miou and KIND_mbiou, in 0..1; without any, nothing is shown."""
        if not scores:
            return
        if not self._last:
            self._first = scores
            self._log.info(_ROW, "validation", "masks", "mIoU", "mBIoU", "mBIoU gained")
        self._last = scores
        for kind in dict.fromkeys(name.rpartition("_")[0] for name in scores):
            miou, mbiou = scores[f"{kind}_miou"], scores[f"{kind}_mbiou"]
            self._log.info(_ROW, f"step {step}", kind, f"{miou:.3f}", f"{mbiou:.3f}", f"{self._gain(kind):+.3f}")

    def end(self, result: Path) -> None:
        """The last line: where the weights are, and what was gained by the kind of masks that is best."""
        kinds = [name.rpartition("_")[0] for name in self._last if name.endswith("_mbiou")]
        gained = ""
        if kinds:
            best = max(kinds, key=lambda kind: self._last[f"{kind}_mbiou"])
            gained = f" (mBIoU of {best} {self._last[f'{best}_mbiou']:.3f}, {self._gain(best):+.3f} since the start)"
        self._log.info("trained weights: %s%s", printable(str(result)), gained)

    def _gain(self, kind: str) -> float:
        return self._last[f"{kind}_mbiou"] - self._first[f"{kind}_mbiou"]
