"""Attention in blocks for narrow values gives what the textbook formula gives."""

from __future__ import annotations

import pytest
import torch

from vidseg.sam2 import memory
from vidseg.sam2.memory import RotaryAttention, attend, rotations


@pytest.mark.parametrize("masked", [False, True])
def test_blocks_give_the_textbook_formula(monkeypatch: pytest.MonkeyPatch, masked: bool) -> None:
    monkeypatch.setattr(memory, "BLOCK", 7)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, d, generator=generator) * 5 for n, d in ((16, 8), (33, 8), (33, 3)))
    mask = torch.ones(2, 1, 1, 33, dtype=torch.bool)
    if masked:
        mask[0, ..., 9:25] = False  # whole blocks
        mask[1, ..., :8] = False  # the first one among them
    score = (q @ k.transpose(1, 2) / 8**0.5).masked_fill(~mask[:, 0], -torch.inf)
    torch.testing.assert_close(attend(q, k, v, mask if masked else None), score.softmax(-1) @ v, atol=1e-5, rtol=1e-5)


def test_a_narrow_memory_is_read_as_by_attention_of_one_width(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    layer = RotaryAttention(16, 4)
    q, v = torch.randn(2, 4, 16), torch.randn(2, 9, 4)
    rotation = rotations(2, 16, torch.device("cpu"))
    with torch.inference_mode():
        blocks = layer(q, v + 1, v, rotation, 1, None)
        double = layer.double()(q.double(), v.double() + 1, v.double(), rotation, 1, None)
    torch.testing.assert_close(blocks, double.float(), atol=1e-5, rtol=1e-5)
