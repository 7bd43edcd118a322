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

OPSET = 17


class EncoderGraph(nn.Module):
    """Normalised, padded image (1, 3, S, S) -> embedding (1, D, g, g) and, where there is one, the fused feature."""

    def __init__(self, sam: Sam) -> None:
        """``sam`` in float32 on the CPU."""
        super().__init__()
        self.sam = sam

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Encode."""
        embedding, early = self.sam.image_encoder(image)
        fused = self.sam.mask_decoder.fuse(embedding, early)
        return (embedding,) if fused is None else (embedding, fused)


class DecoderGraph(nn.Module):
    """N prompts of P points each on one image -> logits of all four mask tokens (N, 4, 4g, 4g) and qualities (N, 4).

    Points are (x, y) pixels of the resized image. Labels: 1 object, 0 background, 2 and 3 the corners of a box, -1 no
    point (add one where there is no box). Masks are logits (N, 1, 4g, 4g), looked at where ``has_mask`` (1) is 1. The
    logits are those of ``sam.config.output``: token 0 is the single answer, 1 to 3 are the candidates.
    """

    def __init__(self, sam: Sam) -> None:
        """``sam`` in float32 on the CPU."""
        super().__init__()
        self.sam = sam
        self.register_buffer("image_pe", sam.prompt_encoder.dense_pe(sam.config.grid, sam.config.grid))

    def forward(
        self,
        embedding: Tensor,
        points: Float[Tensor, "n p 2"],
        labels: Float[Tensor, "n p"],
        masks: Tensor,
        has_mask: Tensor,
        fused: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode."""
        encoder, config = self.sam.prompt_encoder, self.sam.config
        code = encoder.pe_layer((points + 0.5) / config.image_size)
        label = labels[..., None]
        tokens = torch.where(label == -1, encoder.not_a_point_embed.weight, code)
        for kind, embed in enumerate(encoder.point_embeddings):
            tokens = tokens + (label == kind).to(code.dtype) * embed.weight  # type: ignore[operator]
        dense = encoder.mask_downscaling(masks)
        dense = has_mask * dense + (1 - has_mask) * encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        rows = torch.zeros_like(labels[:, 0], dtype=torch.long)
        want_hq = config.output != "sam"
        out = self.sam.mask_decoder(embedding, self.image_pe, tokens, dense, rows, fused, range(4), want_hq=want_hq)
        logits = out.sam
        if out.hq is not None:
            hq = out.hq[:, None].expand(-1, 4, -1, -1)
            logits = logits + hq if config.output == "sum" else hq
        return logits, out.iou


def export_onnx(sam: Sam, folder: Path) -> tuple[Path, Path]:
    """Write ``encoder.onnx``, ``decoder.onnx`` and ``model.json`` (sizes, pixel mean and std) into ``folder``.

    The network must be in float32 on the CPU. The number of prompts and of points is free, the image size is not: pad
    the input to ``image_size`` on both sides.

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
    image = torch.zeros(1, 3, size, size)
    features = ["embedding", "fused"] if sam.mask_decoder.fusion else ["embedding"]
    encoder = folder / "encoder.onnx"
    _export(EncoderGraph(sam), (image,), encoder, ["image"], features, {})

    embedding = torch.zeros(1, dim, grid, grid)
    fused = [torch.zeros(1, dim // 8, 4 * grid, 4 * grid)] if sam.mask_decoder.fusion else []
    points, labels = torch.rand(2, 3, 2) * size, torch.tensor([[1.0, 0, -1], [2, 3, 1]])
    arguments = (embedding, points, labels, torch.zeros(2, 1, 4 * grid, 4 * grid), torch.zeros(1), *fused)
    names = ["embedding", "points", "labels", "masks", "has_mask", *features[1:]]
    free = {name: {0: "prompts"} for name in ("masks", "logits", "iou")}
    free |= {name: {0: "prompts", 1: "points"} for name in ("points", "labels")}
    decoder = folder / "decoder.onnx"
    _export(DecoderGraph(sam), arguments, decoder, names, ["logits", "iou"], free)
    for path in (encoder, decoder):
        onnx.checker.check_model(str(path))
    about = {
        "image_size": size,
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
            dynamic_axes=free,
            opset_version=OPSET,
            dynamo=False,
        )
