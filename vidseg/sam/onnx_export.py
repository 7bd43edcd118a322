"""Encoder and decoder as two ONNX graphs, for runtimes without PyTorch."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidseg.errors import UsageError
from vidseg.sam.model import Sam
from vidseg.sam.prompt_encoder import box_ground, point_mark

OPSET = 17


class EncoderGraph(nn.Module):
    """Normalised, padded image (1, 3, H, W) -> embedding (1, D, H/16, W/16) and the fused feature of an HQ-SAM."""

    def __init__(self, sam: Sam) -> None:
        """``sam`` in float32 on the CPU."""
        super().__init__()
        self.sam = sam

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Embedding (1, D, H/16, W/16), with HQ also the fused feature."""
        embedding, early = self.sam.image_encoder(image)
        fused = self.sam.mask_decoder.fuse(embedding, early) if _uses_fused(self.sam) else None
        return (embedding,) if fused is None else (embedding, fused)


def _uses_fused(sam: Sam) -> bool:
    return sam.mask_decoder.fusion and sam.config.output != "sam"


class DecoderGraph(nn.Module):
    """N prompts of P points each on one image -> logits of all four mask tokens (N, 4, 4h, 4w) and qualities (N, 4).

    Points are (x, y) pixels of the resized image. Labels: 1 object, 0 background, 2 and 3 the corners of a box, -1 no
    point (add one where there is no box). Masks are logits (N, 1, 4h, 4w), looked at where ``has_mask`` (1) is 1. The
    logits are those of ``Sam.decode`` with the network's own output: token 0 is the single answer, 1 to 3 are the
    candidates.
    """

    def __init__(self, sam: Sam) -> None:
        """``sam`` in float32 on the CPU."""
        super().__init__()
        self.sam = sam

    def forward(
        self,
        embedding: Float[Tensor, "1 d h w"],
        points: Float[Tensor, "n p 2"],
        labels: Float[Tensor, "n p"],
        masks: Float[Tensor, "n 1 h4 w4"],
        has_mask: Float[Tensor, 1],
        fused: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Mask logits (N, 4, 4h, 4w) and predicted qualities (N, 4)."""
        encoder, config = self.sam.prompt_encoder, self.sam.config
        code = encoder.pe_layer((points + 0.5) / config.image_size)
        label = labels[..., None]
        tokens = torch.where(label == -1, encoder.not_a_point_embed.weight, code)
        for kind, embed in enumerate(encoder.point_embeddings):
            tokens = tokens + (label == kind).to(code.dtype) * embed.weight  # type: ignore[operator]
        if config.prompt_map:
            dense = encoder.mask_downscaling(_drawn(points, labels, masks, has_mask))
        else:
            empty = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
            dense = has_mask * encoder.mask_downscaling(masks) + (1 - has_mask) * empty
        rows = torch.zeros_like(labels[:, 0], dtype=torch.long)
        image_pe = encoder.dense_pe(embedding.shape[2], embedding.shape[3])
        want_hq = config.output != "sam"
        out = self.sam.mask_decoder(embedding, image_pe, tokens, dense, rows, fused, range(4), want_hq=want_hq)
        logits = out.sam
        if out.hq is not None:
            hq = out.hq[:, None]
            single = hq if config.output == "hq" else logits[:, :1] + hq
            logits = torch.cat([single, logits[:, 1:] + hq], dim=1)
        return logits, out.iou


def _drawn(points: Tensor, labels: Tensor, masks: Tensor, has_mask: Tensor) -> Float[Tensor, "n 1 h4 w4"]:
    """What :func:`~vidseg.sam.prompt_encoder.prompt_map` draws, for any number of points.

    Drawn one after the other, the points leave ``prod(1 - near)`` of the ground and ``near * prod(1 - later near)`` of
    each point's own logit; a graph has sums along an axis but no products, so the factors are added as logarithms.
    """
    size = (masks.shape[2], masks.shape[3])
    corners = [(labels == kind).to(points.dtype)[..., None] for kind in (2, 3)]
    box = torch.cat([(points * corner).sum(1) for corner in corners], dim=1)
    ground = box_ground(size, box) * corners[0].amax(1)[..., None]  # 0 where there is no box
    ground = has_mask * masks[:, 0] + (1 - has_mask) * ground
    near, target = point_mark(size, points, labels)
    left = (1 - near).clamp(min=1e-6).log()
    later = left.flip(1).cumsum(1).flip(1)
    marks = near * target * (later - left).exp()
    return (ground * later[:, 0].exp() + marks.sum(1))[:, None]


def export_onnx(sam: Sam, folder: Path) -> tuple[Path, Path]:
    """Write ``encoder.onnx``, ``decoder.onnx`` and ``model.json`` (sizes, pixel mean and std) into ``folder``.

    The network must be in float32 on the CPU. The number of prompts and of points is free; so is the size of the image
    in networks that pad only to the stride (``pad`` in model.json, sides in multiples of 32): others take
    ``image_size`` on both sides.

    Raises:
        UsageError: the extra ``onnx`` is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise UsageError("ONNX export needs the extra: pip install 'vidseg[onnx]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    config = sam.config
    size, grid, dim = config.image_size, config.grid, config.prompt_dim
    features = ["embedding", "fused"] if _uses_fused(sam) else ["embedding"]
    any_size = {2: "height", 3: "width"} if config.pad == "stride" else {}
    low_size = {axis: f"low_{name}" for axis, name in any_size.items()}
    free = {
        "image": any_size,
        "embedding": {axis: f"grid_{name}" for axis, name in any_size.items()},
        "fused": low_size,
    }
    encoder = folder / "encoder.onnx"
    _export(EncoderGraph(sam), (torch.zeros(1, 3, size, size),), encoder, ["image"], features, free)

    embedding = torch.zeros(1, dim, grid, grid)
    fused = [torch.zeros(1, dim // 8, 4 * grid, 4 * grid)] if _uses_fused(sam) else []
    points, labels = torch.rand(2, 3, 2) * size, torch.tensor([[1.0, 0, -1], [2, 3, 1]])
    arguments = (embedding, points, labels, torch.zeros(2, 1, 4 * grid, 4 * grid), torch.zeros(1), *fused)
    names = ["embedding", "points", "labels", "masks", "has_mask", *features[1:]]
    free |= {name: {0: "prompts", **low_size} for name in ("masks", "logits")} | {"iou": {0: "prompts"}}
    free |= {name: {0: "prompts", 1: "points"} for name in ("points", "labels")}
    decoder = folder / "decoder.onnx"
    _export(DecoderGraph(sam), arguments, decoder, names, ["logits", "iou"], free)
    for path in (encoder, decoder):
        onnx.checker.check_model(str(path))
    about = {
        "image_size": size,
        "pad": config.pad,
        "pixel_mean": config.pixel_mean,
        "pixel_std": config.pixel_std,
        "output": config.output,
        "opset": OPSET,
    }
    (folder / "model.json").write_text(json.dumps(about, indent=1))
    return encoder, decoder


def _export(
    graph: nn.Module,
    arguments: tuple[Any, ...],
    path: Path,
    inputs: list[str],
    outputs: list[str],
    free: dict[str, dict[int, str]],
) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns about every shape that is a constant here on purpose
        torch.onnx.export(
            graph.eval(),
            arguments,
            str(path),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={name: axes for name, axes in free.items() if name in (*inputs, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
