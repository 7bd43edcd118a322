"""Encoders and whole networks against official numbers, and proof that the tolerance notices single mistakes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_oracle import MINI_TINY, MINI_VIT, difference, fill, prompts, rule_image, vectors
from vidseg.backbones import tiny_vit
from vidseg.sam import image_encoder
from vidseg.sam.build import build_sam
from vidseg.sam.config import SamConfig, named_config
from vidseg.sam.mask_decoder import select_masks, wanted_masks
from vidseg.sam.model import Sam

MINI, FULL = 2e-5, 1e-4  # absolute, fp32 on CPU; logits have a spread of 2 to 5

pytestmark = pytest.mark.threads(2)  # the order of sums: with one thread some CPUs are 3e-5 away


def network(config: SamConfig) -> Sam:
    with torch.device("meta"):
        sam = build_sam(config)
    sam.to_empty(device="cpu")
    fill(sam)
    return sam


def worst(sam: Sam, name: str, kinds: tuple[str, ...] = ("box", "points", "box_points", "mask", "none_point")) -> float:
    """Largest difference over embedding, intermediate features, masks and qualities of one fixture."""
    want = vectors(name)
    blocks: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda module, args, out: blocks.append(out))
        for block in getattr(sam.image_encoder, "blocks", [])
        if not block.window
    ]
    (features,) = sam.encode([rule_image(sam.config.image_size * 3 // 4, sam.config.image_size)])
    for hook in hooks:
        hook.remove()
    errors = [difference(features.embedding[None], want["embedding"])]
    errors += [difference(out, want[f"interm{i}"]) for i, out in enumerate(blocks)]
    grid, size = sam.config.grid, sam.config.image_size
    for kind in kinds:
        with torch.no_grad():
            sparse, dense = sam.prompt_encoder(**prompts(size)[kind])
            rows = torch.zeros(len(sparse), dtype=torch.long)
            out = sam.mask_decoder(
                features.embedding[None], features.image_pe, sparse, dense, rows, features.fused[None], range(4)
            )
        errors.append(difference(dense.expand(len(sparse), -1, grid, grid), want[f"{kind}__dense"]))
        for multi, candidates in ((0, "single"), (1, "best")):
            some = type(out)(out.sam[:, list(wanted_masks("sum", candidates))], out.hq, out.iou)
            for hq_only, output in ((0, "sum"), (1, "hq")):
                masks, iou = select_masks(some, output, candidates)
                errors.append(difference(masks, want[f"{kind}__mask_mm{multi}_hq{hq_only}"]))
                errors.append(difference(iou, want[f"{kind}__iou_mm{multi}"]))
    return max(errors)


def test_mini_vit() -> None:
    assert worst(network(MINI_VIT), "mini_vit") < MINI


def test_mini_vit_without_a_bias_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_encoder, "attend_biased", image_encoder.attend_folded)
    assert worst(network(MINI_VIT), "mini_vit", ("box",)) < MINI


@pytest.mark.parametrize("block", [3 * 256, 3 * 196**2 + 1], ids=["some queries", "some heads"])
def test_mini_vit_in_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_encoder, "BLOCK", block)
    assert worst(network(MINI_VIT), "mini_vit", ("box",)) < MINI


def test_mini_vit_with_the_fused_kernel_and_queries_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_encoder, "BIAS_ELEMENTS", 3 * 256 * 100)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    assert worst(network(MINI_VIT), "mini_vit", ("box",)) < MINI


@pytest.mark.slow
def test_mini_tiny() -> None:
    # HQ logits reach 27 here: the official fp32 numbers are 3.2e-5 from what this network gives in fp64.
    assert worst(network(MINI_TINY), "mini_tiny", ("box", "mask")) < 5e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny", "vit_b"])
def test_full_size(name: str) -> None:
    sam = network(named_config(f"sam-hq-{name.replace('_', '-')}"))
    assert worst(sam, name, ("box", "points", "mask")) < FULL


def test_training_mode_changes_nothing() -> None:
    block = tiny_vit.MBConv(8)
    fill(block)
    x = torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block.train()(x), block.eval()(x))


def set_eps(module: nn.Module, eps: float) -> None:
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = eps


def swap_tables(sam: Sam) -> None:
    for block in sam.image_encoder.blocks:
        block.attn.rel_pos_h, block.attn.rel_pos_w = block.attn.rel_pos_w, block.attn.rel_pos_h


def forget_half_pixel(sam: Sam) -> None:
    forward = sam.prompt_encoder.forward
    sam.prompt_encoder.forward = lambda boxes: forward(boxes=boxes - 0.5)  # type: ignore[method-assign]


def keep_first_residual(sam: Sam) -> None:
    sam.mask_decoder.transformer.layers[0].first = False


def pad_before_norm(sam: Sam) -> None:
    for block in sam.image_encoder.blocks:
        norm = block.norm1
        block.attn.forward = partial(attend_normed_padding, block.attn.forward, norm.bias)


def attend_normed_padding(attend: Callable[[Tensor], Tensor], bias: Tensor, x: Tensor) -> Tensor:
    padded = (x == 0).all(-1, keepdim=True)
    return attend(torch.where(padded, bias, x))


def scale_relative_query(sam: Sam) -> None:
    for block in sam.image_encoder.blocks:
        for table in (block.attn.rel_pos_h, block.attn.rel_pos_w):
            table.mul_(table.shape[1] ** -0.5)


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(lambda sam: set_eps(sam.mask_decoder.transformer, 1e-6), id="eps of the two-way transformer"),
        pytest.param(lambda sam: set_eps(sam.image_encoder, 1e-5), id="eps of the encoder"),
        forget_half_pixel,
        swap_tables,
        keep_first_residual,
        pad_before_norm,
        scale_relative_query,
    ],
)
def test_single_mistakes_are_noticed(mistake: Callable[[Sam], None]) -> None:
    sam = network(MINI_VIT)
    mistake(sam)
    assert worst(sam, "mini_vit", ("mask",) if mistake is not forget_half_pixel else ("box",)) > MINI


def test_tanh_gelu_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "gelu", partial(F.gelu, approximate="tanh"))
    assert worst(network(MINI_VIT), "mini_vit", ("box",)) > 100 * MINI
