"""The video rules of SAM 2 around its networks: prompts become a record, records memory, and memory meets a frame.

Everything works on N objects of one image at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from vidseg.runtime import send
from vidseg.sam2.decoder import Selection
from vidseg.sam2.model import LOGIT_LIMIT, Sam2, Sam2Features
from vidseg.sam2.preprocess import MASK_LOGIT, MaskPrompt
from vidseg_trackers.sam2.records import NO_OBJECT, Reading, Record


class VideoRules:
    """The rules of one network."""

    def __init__(self, net: Sam2, memory_dtype: torch.dtype = torch.bfloat16) -> None:
        """``memory_dtype``: precision of stored memory; bfloat16 is part of the published numbers."""
        self.net, self.config, self.memory_dtype = net, net.config, memory_dtype
        self._memory_positions: Tensor | None = None

    def prompted(
        self,
        features: Sam2Features,
        embedding: Float[Tensor, "N D g g"],
        clicks: tuple[Tensor, Tensor] | None = None,
        previous: Float[Tensor, "N 1 h w"] | None = None,
    ) -> list[Record]:
        """Records, without memory, of N objects from clicks (points, labels) or, without clicks, from memory alone.

        ``embedding`` has one row for all or one per object. ``previous`` are logits that a click corrects.
        """
        n = len(embedding) if clicks is None else len(clicks[0])
        if clicks is None:
            clicks = (embedding.new_zeros(n, 1, 2), torch.full((n, 1), -1, device=embedding.device))
            multimask = True
        else:
            multimask = clicks[0].shape[1] <= 1
        mask = None if previous is None else previous.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        chosen, score = self._decode(features, embedding, clicks, mask, multimask)
        masks = torch.where((score > 0)[:, :, None, None], chosen.masks, NO_OBJECT)
        tokens = chosen.tokens
        if multimask:
            best, row = chosen.iou.argmax(1), torch.arange(n, device=masks.device)
            masks, tokens = masks[row, best][:, None], tokens[row, best][:, None]
        pointers = self._pointers(tokens[:, 0], score > 0)
        return [Record(masks[i : i + 1], score[i : i + 1], pointers[i : i + 1]) for i in range(n)]

    def given(self, features: Sam2Features, mask: MaskPrompt) -> Record:
        """The record, without memory, of one object whose mask is given; its pointer is read from the raw embedding."""
        there = mask.mask.flatten(1).any(1, keepdim=True)
        raw = features.fpn[2]
        nothing = (raw.new_zeros(1, 1, 2), torch.full((1, 1), -1, device=raw.device))
        dense = self.net.mask_downsample(mask.mask.to(raw.dtype))
        chosen, score = self._decode(features, raw, nothing, dense, multimask=False)
        pointer = self._pointers(chosen.tokens[:, 0], (score > 0) & there)
        certain = torch.where(there, MASK_LOGIT, -MASK_LOGIT)
        return Record(mask.low, certain, pointer)

    def empty(self) -> Record:
        """The record of an object that is absent from a frame prompted for others (batched predictor)."""
        side = self.config.image_size // 4
        low = torch.full((1, 1, side, side), NO_OBJECT, device=self.net.device)
        return Record(low, torch.full((1, 1), 10.0, device=self.net.device), self.net.no_obj_ptr.float())

    def _decode(
        self,
        features: Sam2Features,
        embedding: Tensor,
        clicks: tuple[Tensor, Tensor],
        mask: Tensor | None,
        multimask: bool,
    ) -> tuple[Selection, Tensor]:
        output = self.net.decode(embedding, features.high_res, clicks, mask)
        dynamic = self.config.dynamic_multimask
        return self.net.sam_mask_decoder.select(output, multimask=multimask, dynamic=dynamic), output.object_score

    def _pointers(self, tokens: Float[Tensor, "N D"], there: Bool[Tensor, "N 1"]) -> Float[Tensor, "N D"]:
        pointers = self.net.obj_ptr_proj(tokens).float()
        return torch.where(there, pointers, self.net.no_obj_ptr.float())

    def remember(
        self,
        features: Sam2Features,
        records: Sequence[Record],
        *,
        prompted: bool,
        exact: Float[Tensor, "N 1 S S"] | None = None,
    ) -> None:
        """Give records their spatial memory. ``exact``: logits at the input size, not the enlarged ones."""
        if not records:
            return
        size = (self.config.image_size, self.config.image_size)
        if exact is None:
            low = torch.cat([record.low for record in records if record.low is not None])
            exact = F.interpolate(low, size, mode="bilinear", align_corners=False)
        if self.config.non_overlap_memory:
            exact = non_overlapping(exact)
        inside = (exact > 0).float() if prompted and self.config.binarize_prompted else torch.sigmoid(exact)
        memory = self.net.memory_encoder(features.fpn[2], inside * 20 - 10).float()
        if self.config.occlusion:
            absent = torch.cat([record.score for record in records]) <= 0
            memory = memory + absent[:, :, None, None] * self.net.no_obj_embed_spatial.float()[..., None, None]
        for record, one in zip(records, memory.to(self.memory_dtype).split(1), strict=True):
            record.mem = one

    def condition(
        self, features: Sam2Features, readings: Sequence[Reading], pointer_frames: int
    ) -> Float[Tensor, "N D g g"]:
        """The image's embedding after reading the memory of each object; ``pointer_frames`` scales distances."""
        parts = [(self._spatial(r), self._pointer_tokens(r, pointer_frames)) for r in readings]
        spatial = max(len(s[0]) for s, _ in parts)
        pointers = max(len(p[0]) for _, p in parts)
        device = self.net.device
        rows, places, padded = [], [], False
        mask = torch.ones(len(parts), spatial + pointers, dtype=torch.bool, device=device)
        for row, ((memory, position), (tokens, distance)) in enumerate(parts):
            gap, rest = spatial - len(memory), pointers - len(tokens)
            padded |= bool(gap or rest)
            mask[row, len(memory) : spatial] = False
            mask[row, spatial + len(tokens) :] = False
            rows.append(torch.cat([F.pad(memory, (0, 0, 0, gap)), F.pad(tokens, (0, 0, 0, rest))]))
            places.append(torch.cat([F.pad(position, (0, 0, 0, gap)), F.pad(distance, (0, 0, 0, rest))]))
        return self.net.memory_attention(
            features.fpn[2],
            self.net.positions(self.config.dim),
            torch.stack(rows),
            torch.stack(places),
            pointers,
            mask if padded else None,
        )

    def _spatial(self, reading: Reading) -> tuple[Float[Tensor, "T M"], Float[Tensor, "T M"]]:
        if self._memory_positions is None:
            self._memory_positions = self.net.positions(self.config.memory_dim)[0].flatten(1).t()
        memory, places = [], []
        for record, row in reading.spatial:
            assert record.mem is not None  # Reading holds only such
            memory.append(record.mem[0].flatten(1).t().float())
            places.append(self._memory_positions + self.net.maskmem_tpos_enc[row, 0, 0].float())
        return torch.cat(memory), torch.cat(places)

    def _pointer_tokens(self, reading: Reading, frames: int) -> tuple[Float[Tensor, "T M"], Float[Tensor, "T M"]]:
        """Every pointer as a few tokens of the memory's width, with the code of its distance in time."""
        width, device = self.config.memory_dim, self.net.device
        if not reading.pointers:
            return torch.zeros(0, width, device=device), torch.zeros(0, width, device=device)
        pointers = torch.cat([record.ptr for record, _ in reading.pointers])
        pieces = self.config.dim // width
        tokens = pointers.reshape(-1, width)
        if not self.config.pointer_positions:
            return tokens, torch.zeros_like(tokens)
        distance = send(torch.tensor([d for _, d in reading.pointers], dtype=torch.float32), device)
        code = _time_code(distance / (frames - 1), self.config.dim)
        places = self.net.obj_ptr_tpos_proj(code.to(self.net.no_mem_embed.dtype)).float()
        return tokens, places.repeat_interleave(pieces, 0)


def non_overlapping(logits: Float[Tensor, "N 1 H W"]) -> Float[Tensor, "N 1 H W"]:
    """Every pixel belongs to the object with the highest logit, the first of equals; the others get at most -10."""
    if len(logits) == 1:
        return logits
    best = logits.argmax(0, keepdim=True)
    own = torch.arange(len(logits), device=logits.device)[:, None, None, None] == best
    return torch.where(own, logits, logits.clamp(max=-10.0))


def _time_code(share: Float[Tensor, " n"], dim: int) -> Float[Tensor, "n dim"]:
    """Sines, then cosines, of a distance given as a share."""
    half = dim // 2
    channel = torch.arange(half, device=share.device, dtype=torch.float32)
    angle = share[:, None] / 10000 ** (2 * torch.floor(channel / 2) / half)
    return torch.cat([angle.sin(), angle.cos()], 1)
