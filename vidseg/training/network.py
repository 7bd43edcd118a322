"""SAM as training needs it: many images with several prompts each, gradients through every part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vidseg.sam.mask_decoder import DecoderOutput
from vidseg.sam.model import Sam
from vidseg.sam.prompt_encoder import PromptEncoder, prompt_map
from vidseg.sam2.model import Sam2
from vidseg.training.batches import Batch
from vidseg.training.sam2_network import sam2_answers


def encode_prompts(encoder: PromptEncoder, batch: Batch, with_map: bool = False) -> tuple[Tensor, Tensor]:
    """Sparse tokens (N, T, D) and dense embedding (N or 1, D, h, w) of a batch of mixed prompts."""
    empty = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    if with_map:
        dense = encoder.mask_downscaling(drawn_prompts(batch))
    elif bool(batch.has_mask.any()):
        height, width = batch.logits.shape[-2] // 4, batch.logits.shape[-1] // 4
        dense = empty.expand(len(batch.rows), -1, height, width).clone()
        chosen = batch.has_mask.nonzero()[:, 0]
        dense = dense.index_copy(0, chosen, encoder.mask_downscaling(batch.logits[chosen]).to(dense.dtype))
    else:
        dense = empty
    if batch.layout == "none":
        return empty.new_zeros(len(batch.rows), 0, empty.shape[1]), dense
    if not bool(batch.is_box.all()):
        loose, _ = encoder(points=batch.points, labels=batch.labels)
        if not bool(batch.is_box.any()):
            return loose, dense
    if batch.box_points.shape[1] == 0:
        boxed, _ = encoder(boxes=batch.boxes)
    else:
        boxed, _ = encoder(boxes=batch.boxes, points=batch.box_points, labels=batch.box_labels)
    if bool(batch.is_box.all()):
        return boxed, dense
    return torch.where(batch.is_box[:, None, None], boxed, loose), dense


def drawn_prompts(batch: Batch) -> Tensor:
    """Every prompt as mask logits (N, 1, H/4, W/4), see :mod:`vidseg.sam.prompt_encoder`."""
    size = (batch.logits.shape[-2], batch.logits.shape[-1])
    known = batch.has_mask[:, None, None, None]
    box = torch.where(known, batch.logits, prompt_map(size, boxes=batch.boxes))
    loose = torch.where(known, batch.logits, torch.zeros_like(batch.logits))
    boxed = prompt_map(size, points=batch.box_points, labels=batch.box_labels, masks=box)
    if batch.layout != "none":
        loose = prompt_map(size, points=batch.points, labels=batch.labels, masks=loose)
    return torch.where(batch.is_box[:, None, None, None], boxed, loose)


def encode_images(sam: Sam, images: Tensor) -> tuple[Tensor, Tensor]:
    """Embedding and early feature of grey levels (B, 3, H, W); both sides are multiples of 32."""
    mean = torch.tensor(sam.config.pixel_mean, device=images.device)[:, None, None]
    std = torch.tensor(sam.config.pixel_std, device=images.device)[:, None, None]
    embedding, early = sam.image_encoder((images.float() - mean) / std)
    return embedding, early


def decode_batch(
    sam: Sam, embedding: Tensor, early: Tensor | None, batch: Batch, masks: Sequence[int] = (0, 1, 2, 3)
) -> DecoderOutput:
    """The SAM masks ``masks``, and with the ``early`` feature the HQ mask, of every prompt of a batch."""
    sparse, dense = encode_prompts(sam.prompt_encoder, batch, sam.config.prompt_map)
    pe = sam.prompt_encoder.dense_pe(*embedding.shape[-2:])
    fused = None if early is None else sam.mask_decoder.fuse(embedding, early)
    return sam.mask_decoder(embedding, pe, sparse, dense, batch.rows, fused, masks, want_hq=early is not None)


def mask_answers(network: Sam | Sam2, batch: Batch) -> Tensor:
    """The HQ mask of every prompt of a batch, or the single mask of a SAM without the HQ branch: logits (N, 1, h, w).

    Gradients reach the image encoder where it learns.
    """
    if isinstance(network, Sam2):
        hq = sam2_answers(network, batch).hq
        assert hq is not None  # only networks with the HQ token are trained
        return hq
    with torch.set_grad_enabled(any(p.requires_grad for p in network.image_encoder.parameters())):
        embedding, early = encode_images(network, batch.images)
    if network.config.hq:
        own = decode_batch(network, embedding, early, batch, ()).hq
        assert own is not None  # asked for by passing the early feature
        return own.float()[:, None]
    single = decode_batch(network, embedding, None, batch, (0,)).sam
    assert single is not None  # asked for
    return single.float()
