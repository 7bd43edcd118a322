"""SAM 2 where a SAM is expected: the same questions and answers, for refining, images and automatic masks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from vidseg.compiling import Compiled
from vidseg.errors import UsageError
from vidseg.runtime import send
from vidseg.sam.config import Output
from vidseg.sam.geometry import check_image, frame_geometry
from vidseg.sam.mask_decoder import Candidates, logits_iou
from vidseg.sam.model import FrameFeatures, Masks
from vidseg.sam.objectness import Objectness
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam2.decoder import Selection, as_points
from vidseg.sam2.model import Sam2, Sam2Features

PROMPTS_AT_A_TIME = {"cpu": 16, "other": 64}
"""Prompts decoded at once by default."""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What images become (a square of ``image_size``, squashed) and which masks are handed out by default."""

    image_size: int
    hq: bool
    output: Output
    pad: str = "squash"
    quality: float = 0.8
    """Predicted quality from which automatic masks are kept, as in the published generator of SAM 2."""


@dataclass(frozen=True, slots=True, repr=False)
class Sam2FrameFeatures(FrameFeatures):
    """Features of one frame, with the finer ones that SAM 2's decoder adds."""

    high_res: tuple[Tensor, Tensor]


class Sam2AsSam:
    """A SAM 2 or HQ-SAM 2 with the interface of :class:`vidseg.sam.model.Sam`.

    Images are squashed to a square, so that prompts and masks have different scales along x and y. The answers are
    those of the published image predictor with its default settings: an unstable single mask gives way to the best of
    the three candidates, and the score of the object's presence is not applied.
    """

    def __init__(self, net: Sam2) -> None:
        """``net``: a network in evaluation mode."""
        self.net = net
        self.objectness: Objectness | None = None
        hq = net.config.hq
        self.config = AdapterConfig(net.config.image_size, hq, "sum" if hq else "sam")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.net.device

    @property
    def compiled(self) -> Compiled | None:
        """The encoder, where it is compiled."""
        return self.net.compiled

    def compile_encoder(self) -> None:
        """See :meth:`vidseg.sam.model.Sam.compile_encoder`."""
        self.net.compiled = Compiled(self.net.image_encoder, self.device)

    def with_output(self, output: Output) -> Sam2AsSam:
        """The same network, which hands out ``output`` by default; the weights are shared."""
        other = copy.copy(self)
        other.config = replace(self.config, output=output)
        return other

    def encode(self, images: Sequence[npt.NDArray[np.uint8]], side: int | None = None) -> list[Sam2FrameFeatures]:
        """Features of RGB images (uint8, (H, W, 3)), in order, one pass each.

        Raises:
            InputError: not such an image.
            UsageError: another ``side`` than the network's image size, which is the only one it has.
        """
        if side not in (None, self.config.image_size):
            raise UsageError(f"SAM 2 encodes squares of {self.config.image_size} pixels, not of {side}")
        for image in images:
            check_image(image)
        return [self.wrap(self.net.encode_image(image)) for image in images]

    def wrap(self, features: Sam2Features) -> Sam2FrameFeatures:
        """Features of the network, such as a tracker has, as those of a frame to decode prompts on."""
        geometry = frame_geometry(features.size, self.config)
        return Sam2FrameFeatures(features.embedding[0], None, self.net.dense_pe(), geometry, features.high_res)

    @torch.inference_mode()
    def decode(
        self,
        features: Sequence[FrameFeatures],
        prompts: Sequence[PromptBatch],
        output: Output | None = None,
        candidates: Candidates = "single",
        max_batch: int | None = None,
    ) -> list[Masks]:
        """Masks for ``prompts[i]`` on ``features[i]``; see :meth:`vidseg.sam.model.Sam.decode`.

        Raises:
            UsageError: lists of different lengths, HQ masks of a SAM 2 without an HQ token, ``max_batch`` below 1, or
                features of another kind of network.
        """
        if len(features) != len(prompts):
            raise UsageError(f"decode: {len(features)} frames but {len(prompts)} sets of prompts")
        if output is None:  # the HQ mask alone is one mask: several candidates need SAM's part
            output = "sum" if self.config.output == "hq" and candidates != "single" else self.config.output
        if output != "sam" and not self.config.hq:
            raise UsageError(f"output {output!r}: this is a plain SAM 2 without the HQ branch, only 'sam' is possible")
        step = max_batch or PROMPTS_AT_A_TIME["cpu" if self.device.type == "cpu" else "other"]
        if step < 1:
            raise UsageError(f"max_batch {max_batch}: at least 1 is expected")
        answers = []
        for frame, asked in zip(features, prompts, strict=True):
            if not isinstance(frame, Sam2FrameFeatures):
                raise UsageError("decode: these features are not those of a SAM 2")
            logits, iou, same = self._answer(frame, asked, output, candidates, step)
            answers.append(Masks(logits, iou, frame.geometry, same if output != "sam" else None))
        return answers

    def _answer(
        self, frame: Sam2FrameFeatures, asked: PromptBatch, output: Output, candidates: Candidates, step: int
    ) -> tuple[Float[Tensor, "n m h w"], Float[Tensor, "n m"], Float[Tensor, "n m"]]:
        """Logits, qualities, and the IoU of SAM's own masks and these."""
        fields = {k: send(v, self.device) for k, v in asked.resized(frame.geometry).items()}
        count = 3 if candidates == "all" else 1
        empty = torch.zeros(0, count, *frame.geometry.low_res, device=self.device)
        parts = [(empty, empty[:, :, 0, 0], empty[:, :, 0, 0])]
        for start in range(0, len(asked), step):
            part = {k: v[start : start + step] for k, v in fields.items()}
            clicks = as_points(part.get("points"), part.get("labels"), part.get("boxes"))
            result = self.net.decode(frame.embedding[None], frame.high_res, clicks, part.get("masks"))
            several, plain = candidates != "single", replace(result, hq=None)
            select = partial(self.net.sam_mask_decoder.select, multimask=several, dynamic=True)
            sam = select(plain)
            chosen = sam if output == "sam" else select(result, hq_only=output == "hq")
            (logits, iou), (own, _) = (_best(s) if candidates == "best" else _all(s) for s in (chosen, sam))
            parts.append((logits, iou, logits_iou(logits, own)))
        logits, iou, same = (torch.cat([part[k] for part in parts]) for k in range(3))
        return logits, iou, same


def _all(chosen: Selection) -> tuple[Tensor, Tensor]:
    """Every mask with its quality; the HQ mask alone is repeated, as it has one mask for all qualities."""
    return chosen.masks.expand(-1, chosen.iou.shape[1], -1, -1), chosen.iou


def _best(chosen: Selection) -> tuple[Tensor, Tensor]:
    """The mask of the highest quality."""
    masks, iou = _all(chosen)
    row = torch.arange(len(iou), device=iou.device)
    best = iou.argmax(1)
    return masks[row, best][:, None], iou[row, best][:, None]
