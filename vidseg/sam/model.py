"""SAM and HQ-SAM as one object: encode frames once, then decode any number of prompts on them.

``encode`` gives explicit, immutable features; nothing is remembered between calls.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidseg.compiling import Compiled
from vidseg.errors import UsageError
from vidseg.masks.paste import to_original_size
from vidseg.runtime import send
from vidseg.sam.config import InputConfig, Output, SamConfig
from vidseg.sam.geometry import Geometry, check_image, frame_geometry, preprocess
from vidseg.sam.mask_decoder import Candidates, MaskDecoder, hq_iou, select_masks, wanted_masks
from vidseg.sam.objectness import Objectness, pick_best
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam.prompt_encoder import PromptEncoder, prompt_map
from vidseg.types import Frame, ShapeRepr

CPU_PIXELS = 5 << 18
"""Most pixels that a CPU encodes at once: two frames of 16:9. What lies between the layers of more does not stay in its
cache; four frames at once took a fifth longer than two."""
CPU_PROMPTS = 6
"""Most prompts that a CPU decodes at once, for the same reason: twelve took two fifths longer."""


@dataclass(frozen=True, slots=True, repr=False)
class FrameFeatures(ShapeRepr):
    """What the image encoder says about one frame: enough to decode any prompt on it.

    ``fused`` is the HQ feature, which no prompt changes (None without the HQ branch); ``image_pe`` the positional code
    of the grid, shared by frames of one size.
    """

    embedding: Float[Tensor, "d h w"]
    fused: Float[Tensor, "d8 h4 w4"] | None
    image_pe: Float[Tensor, "1 hw d"]
    geometry: Geometry


@dataclass(frozen=True, slots=True, repr=False)
class Masks(ShapeRepr):
    """The answer for N prompts on one frame: M masks each (1, or 3 for all candidates).

    ``logits`` are at low resolution and cover the padded input; foreground is > 0. ``iou`` is the quality that SAM
    predicts for its own mask (it may exceed 1). ``hq_iou`` is the IoU of SAM's own mask and the one with the HQ
    correction, None where only one of them was drawn.
    """

    logits: Float[Tensor, "n m h w"]
    iou: Float[Tensor, "n m"]
    geometry: Geometry
    hq_iou: Float[Tensor, "n m"] | None = None

    def upsampled(self) -> Float[Tensor, "n m H W"]:
        """Logits at the size of the original image."""
        g = self.geometry
        flat = to_original_size(self.logits.flatten(0, 1), *g.between, g.original)
        return flat.unflatten(0, self.logits.shape[:2])


@runtime_checkable
class SegmentAnything(Protocol):
    """What draws masks for prompts: :class:`Sam`, or a SAM 2 (:class:`vidseg.sam2.adapter.Sam2AsSam`)."""

    @property
    def config(self) -> InputConfig: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def objectness(self) -> Objectness | None: ...
    @property
    def compiled(self) -> Compiled | None:
        """The image encoder through torch.compile; None: it is not compiled."""
        ...

    def encode(self, images: Sequence[npt.NDArray[np.uint8]], side: int | None = None) -> Sequence[FrameFeatures]:
        """Features of RGB images; see :meth:`Sam.encode`."""
        ...

    def decode(
        self,
        features: Sequence[FrameFeatures],
        prompts: Sequence[PromptBatch],
        output: Output | None = None,
        candidates: Candidates = "single",
        max_batch: int | None = None,
    ) -> list[Masks]:
        """Masks for prompts; see :meth:`Sam.decode`."""
        ...

    def with_output(self, output: Output) -> SegmentAnything:
        """The same network, which hands out ``output`` by default; the weights are shared."""
        ...


@runtime_checkable
class SharesEncoder(Protocol):
    """A tracker that can work with the network that draws the masks, so that a frame is encoded once for both."""

    def share(self, sam: SegmentAnything) -> bool:
        """Work with that network if it has the tracker's weights; False: it is another one."""
        ...

    def features(self, frame: Frame) -> FrameFeatures:
        """The features of a frame, which is encoded now or was just now."""
        ...


class Sam(nn.Module):
    """An image encoder, the prompt encoder and the mask decoder, under the names of the official checkpoints."""

    def __init__(self, config: SamConfig, image_encoder: nn.Module) -> None:
        """``image_encoder`` maps (B, 3, H, W) to (embedding (B, D, H/16, W/16), early (B, E, ...))."""
        super().__init__()
        self.config = config
        self.image_encoder = image_encoder
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)
        self.objectness = Objectness(config.prompt_dim) if config.objectness else None
        self.compiled: Compiled | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.prompt_encoder.no_mask_embed.weight.device

    def with_output(self, output: Output) -> Sam:
        """The same network, which hands out ``output`` by default; the weights are shared."""
        other = copy.copy(self)
        other.config = replace(self.config, output=output)
        return other

    def compile_encoder(self) -> None:
        """Encode with torch.compile from now on, all but crops: their shapes are many.

        Raises:
            UsageError: it cannot work here, see :func:`vidseg.compiling.check_compiler`.
        """
        self.compiled = Compiled(self.image_encoder, self.device)

    def _autocast(self) -> torch.autocast:
        """Mixed precision when the weights are half precision; norms and the positional code stay float32."""
        dtype = self.mask_decoder.transformer.final_attn_token_to_image.q_proj.weight.dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32)

    @torch.no_grad()
    def encode(self, images: Sequence[npt.NDArray[np.uint8]], side: int | None = None) -> list[FrameFeatures]:
        """Features of RGB images (uint8, (H, W, 3)), in order. Images whose padded size agrees share a batch,
        on a CPU as many as :data:`CPU_PIXELS` allows, and each alone where the encoder is compiled.

        ``side`` is the length to which the longer side is brought, by default the network's image size.

        Raises InputError for anything that is not such an image.
        """
        for image in images:
            check_image(image)
        geometries = [frame_geometry((image.shape[0], image.shape[1]), self.config, side) for image in images]
        compiled = self.compiled if side in (None, self.config.image_size) else None
        groups: dict[tuple[int, int], list[int]] = {}
        for i, geometry in enumerate(geometries):
            groups.setdefault(geometry.padded, []).append(i)
        features: dict[int, FrameFeatures] = {}
        parts: list[list[int]] = []
        for padded, members in groups.items():
            at_once = max(1, CPU_PIXELS // (padded[0] * padded[1])) if self.device.type == "cpu" else len(members)
            at_once = 1 if compiled else at_once  # one shape for all
            parts += [members[i : i + at_once] for i in range(0, len(members), at_once)]
        for group in parts:
            pixels = preprocess([images[i] for i in group], [geometries[i] for i in group], self.config, self.device)
            with self._autocast():
                embedding, early = (compiled or self.image_encoder)(pixels)
                fused = self.mask_decoder.fuse(embedding, early)
            pe = self.prompt_encoder.dense_pe(*geometries[group[0]].grid)
            for row, i in enumerate(group):
                features[i] = FrameFeatures(embedding[row], None if fused is None else fused[row], pe, geometries[i])
        return [features[i] for i in range(len(images))]

    @torch.no_grad()
    def decode(
        self,
        features: Sequence[FrameFeatures],
        prompts: Sequence[PromptBatch],
        output: Output | None = None,
        candidates: Candidates = "single",
        max_batch: int | None = None,
    ) -> list[Masks]:
        """Masks for ``prompts[i]`` on ``features[i]``; the numbers of prompts may differ and may be 0.

        ``output`` is "sum" (SAM + HQ logits), "hq" or "sam", by default what the model was made for; ``candidates``
        "single" (one mask), "best" (of three, by predicted quality and the judge of objects, where there is one)
        or "all" (three). At most ``max_batch`` prompts are decoded at a time, by default as many as fit in a bounded
        memory; the result does not depend on it.
        """
        if len(features) != len(prompts):
            raise UsageError(f"decode: {len(features)} frames but {len(prompts)} sets of prompts")
        if output is None:  # the HQ mask alone is one mask: several candidates need SAM's part
            several = self.config.output == "hq" and candidates != "single"
            output = "sum" if several else self.config.output
        if output != "sam" and not self.config.hq:
            raise UsageError(f"output {output!r}: this is a plain SAM without the HQ branch, only 'sam' is possible")
        if candidates == "best" and self.objectness is not None and output != "hq":
            every = self.decode(features, prompts, output, "all", max_batch)
            judged = zip(features, every, prompts, strict=True)
            return [pick_best(self.objectness, frame, answer, asked) for frame, answer, asked in judged]
        groups: dict[object, list[int]] = {}
        for i, (feature, prompt) in enumerate(zip(features, prompts, strict=True)):
            groups.setdefault((feature.geometry.grid, prompt.kind), []).append(i)
        answers: dict[int, Masks] = {}
        for group in groups.values():
            logits, iou, same = self._decode_group(
                [features[i] for i in group], [prompts[i] for i in group], output, candidates, max_batch
            )
            counts = [len(prompts[i]) for i in group]
            compared = [None] * len(group) if same is None else same.split(counts)
            parts = zip(group, logits.split(counts), iou.split(counts), compared, strict=True)
            for i, part, quality, hq in parts:
                answers[i] = Masks(part, quality, features[i].geometry, hq)
        return [answers[i] for i in range(len(features))]

    def _decode_group(
        self,
        features: list[FrameFeatures],
        prompts: list[PromptBatch],
        output: Output,
        candidates: Candidates,
        max_batch: int | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Frames of one grid size with prompts of one kind, flattened to (frame, prompt) pairs, in bounded chunks."""
        fields = [p.resized(f.geometry) for p, f in zip(prompts, features, strict=True)]
        inputs = {name: send(torch.cat([f[name] for f in fields]), self.device) for name in fields[0]}
        if self.config.prompt_map:
            inputs["masks"] = prompt_map(features[0].geometry.low_res, **inputs)
        frames = np.repeat(np.arange(len(prompts)), [len(p) for p in prompts])
        all_rows = send(torch.from_numpy(frames), self.device)
        grid = features[0].geometry.grid
        step = max_batch or self._chunk(grid)
        if step < 1:
            raise UsageError(f"max_batch {max_batch}: expected at least 1")
        chunks: list[tuple[Tensor, Tensor, Tensor | None]] = []
        for start in range(0, len(frames), step):
            here = frames[start : start + step]
            used = features[here[0] : here[-1] + 1]
            rows = all_rows[start : start + step] - int(here[0])
            embedding = torch.stack([f.embedding for f in used]) if len(used) > 1 else used[0].embedding[None]
            details = [f.fused for f in used if f.fused is not None and output != "sam"]
            fused = torch.stack(details) if len(details) > 1 else details[0][None] if details else None
            with self._autocast():
                sparse, dense = self.prompt_encoder(**{k: v[start : start + step] for k, v in inputs.items()})
                result = self.mask_decoder(
                    embedding,
                    used[0].image_pe,
                    sparse,
                    dense,
                    rows,
                    fused,
                    wanted_masks(output, candidates),
                    want_hq=output != "sam",
                )
            masks, iou = select_masks(result, output, candidates)
            same = hq_iou(result, masks, output, candidates)
            chunks.append((masks.float(), iou.float(), None if same is None else same.float()))
        if not chunks:
            m = 3 if candidates == "all" else 1
            empty = torch.zeros(0, m, 4 * grid[0], 4 * grid[1], device=self.device)
            return empty, empty[:, :, 0, 0], None
        logits, qualities, compared = (list(parts) for parts in zip(*chunks, strict=True))
        known = [one for one in compared if one is not None]
        return torch.cat(logits), torch.cat(qualities), torch.cat(known) if known else None

    def _chunk(self, grid: tuple[int, int]) -> int:
        """Prompts decoded at a time by default: their activations take at most 0.5 GiB (4 GiB on an accelerator)."""
        cells, dim = grid[0] * grid[1], self.config.prompt_dim
        per_prompt = 4 * cells * (16 * (dim // 8) * 6 + 6 * dim)
        if self.device.type == "cpu":
            return max(1, min(CPU_PROMPTS, 2**29 // per_prompt))
        return max(1, 2**32 // per_prompt)
