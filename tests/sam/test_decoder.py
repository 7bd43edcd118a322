"""Prompt encoder and mask decoder against official numbers, from the stored embedding on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sam_oracle import MINI_VIT, difference, fill, prompts, vectors
from vidseg.sam.hq import MaskFeature
from vidseg.sam.mask_decoder import MaskDecoder, select_masks, wanted_masks
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
            masks, iou = select_masks(out, output, candidates)
            assert difference(masks, want[f"{name}__mask_mm{multi}_hq{hq_only}"]) < TOLERANCE
            assert difference(iou, want[f"{name}__iou_mm{multi}"]) < TOLERANCE


def test_mixing_puts_the_fused_feature_into_the_mask_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(mix: bool) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        decoder = MaskDecoder(replace(MINI_VIT, hq_mix=mix))
        torch.manual_seed(1)
        dim = MINI_VIT.prompt_dim
        fused, rows = torch.randn(2, dim // 8, 16, 24), torch.tensor([0, 1, 1])
        inputs = torch.randn(2, dim, 4, 6), torch.randn(1, 24, dim), torch.randn(3, 2, dim), torch.randn(1, dim, 1, 1)
        answer = decoder(*inputs, rows, fused).hq
        upscaled, weights, details = seen.pop()
        assert torch.equal(details, fused[rows])
        first, norm, gelu, last = (decoder.embedding_maskfeature[i] for i in range(4))
        x = gelu(norm(first(upscaled)))
        assert len(decoder.embedding_maskfeature.wide) == (2 if mix else 0)
        for conv in decoder.embedding_maskfeature.wide:
            x = x + gelu(conv(x))
        by_hand = ((last(x) + details) * weights[..., None, None]).sum(1)
        assert torch.allclose(answer, by_hand, atol=1e-5)
        return upscaled, details

    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    mask = MaskFeature.mask
    monkeypatch.setattr(MaskFeature, "mask", lambda *a: (seen.append(a[1:]), mask(*a))[1])
    plain, details = run(mix=False)
    assert torch.allclose(run(mix=True)[0], plain + details)
