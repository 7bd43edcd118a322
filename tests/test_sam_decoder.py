"""Prompt encoder and mask decoder against official numbers, from the stored embedding on."""

from __future__ import annotations

import pytest
import torch

from sam_oracle import MINI_VIT, difference, fill, prompts, vectors
from vidseg.sam.mask_decoder import MaskDecoder, select, wanted_masks
from vidseg.sam.prompt_encoder import PromptEncoder

TOLERANCE = 2e-5  # the official code in fp32 is 1e-5 from itself in fp64


@pytest.fixture(scope="module")
def parts() -> tuple[PromptEncoder, MaskDecoder]:
    prompt_encoder, decoder = PromptEncoder(MINI_VIT), MaskDecoder(MINI_VIT)
    fill(prompt_encoder, "prompt_encoder.")
    fill(decoder, "mask_decoder.")
    return prompt_encoder, decoder


def test_dense_pe(parts: tuple[PromptEncoder, MaskDecoder]) -> None:
    pe = parts[0].dense_pe(16, 16).transpose(1, 2).reshape(1, 64, 16, 16)
    assert difference(pe, vectors("mini_vit")["dense_pe"]) < TOLERANCE
    crop = parts[0].dense_pe(9, 16).transpose(1, 2).reshape(1, 64, 9, 16)
    assert torch.equal(crop, pe[:, :, :9])


@pytest.mark.parametrize("name", ["box", "points", "box_points", "mask", "none_point"])
def test_decoder_parity(parts: tuple[PromptEncoder, MaskDecoder], name: str) -> None:
    prompt_encoder, decoder = parts
    want = vectors("mini_vit")
    embedding = torch.from_numpy(want["embedding"])
    early = torch.from_numpy(want["interm0"]).permute(0, 3, 1, 2)
    sparse, dense = prompt_encoder(**prompts(256)[name])
    if f"{name}__sparse" in want:
        assert difference(sparse, want[f"{name}__sparse"]) < TOLERANCE
    assert difference(dense.expand(len(sparse), -1, 16, 16), want[f"{name}__dense"]) < TOLERANCE

    fused = decoder.fuse(embedding, early)
    rows = torch.zeros(len(sparse), dtype=torch.long)
    for multi, candidates in ((0, "single"), (1, "best")):
        for hq_only, output in ((0, "sum"), (1, "hq")):
            out = decoder(
                embedding, prompt_encoder.dense_pe(16, 16), sparse, dense, rows, fused, wanted_masks("sum", candidates)
            )
            masks, iou = select(out, output, candidates)
            assert difference(masks, want[f"{name}__mask_mm{multi}_hq{hq_only}"]) < TOLERANCE
            assert difference(iou, want[f"{name}__iou_mm{multi}"]) < TOLERANCE
