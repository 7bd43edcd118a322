"""What the package promises to vidseg."""

from __future__ import annotations

import torch
from vidseg_histogram_tracker import build

from vidseg.testing import check_tracker


def test_the_tracker_keeps_the_contract() -> None:
    check_tracker(lambda: build({}, device=torch.device("cpu"), dtype=torch.float32, offline=True))
