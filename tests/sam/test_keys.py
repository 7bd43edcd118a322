"""State dicts of all networks against the key lists of the official ones: names, order, shapes and dtypes."""

from __future__ import annotations

import pytest
import torch

from sam_oracle import FIXTURES
from vidseg.sam.build import build_sam
from vidseg.sam.config import named_config


def official_keys(size: str) -> list[tuple[str, str, str, str]]:
    lines = (FIXTURES / f"keys_{size}.txt").read_text().splitlines()
    return [tuple(line.split("\t")) for line in lines if not line.startswith("#")]


def ours(name: str) -> list[tuple[str, str, str]]:
    with torch.device("meta"):
        state = build_sam(named_config(name)).state_dict()
    return [
        (key, "x".join(map(str, value.shape)) or "scalar", str(value.dtype).removeprefix("torch."))
        for key, value in state.items()
    ]


@pytest.mark.parametrize("size", ["vit_b", "vit_l", "vit_h", "vit_tiny"])
def test_hq_keys(size: str) -> None:
    want = [row[:3] for row in official_keys(size)]
    assert sorted(ours(f"sam-hq-{size.replace('_', '-')}")) == sorted(want)


@pytest.mark.parametrize(
    ("size", "name"),
    [("vit_b", "sam-vit-b"), ("vit_l", "sam-vit-l"), ("vit_h", "sam-vit-h"), ("vit_tiny", "mobile-sam")],
)
def test_plain_sam_has_no_hq_keys(size: str, name: str) -> None:
    want = [row[:3] for row in official_keys(size) if row[3] != "hq"]
    assert sorted(ours(name)) == sorted(want)
