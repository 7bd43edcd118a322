"""Cutie frame by frame: when to segment, when to memorise, and what a mask changes (facts of the official procedure).

All tensors are those of one image; nothing here knows of videos, files or prompts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vidseg.errors import UsageError
from vidseg.state import nested, prefixed
from vidseg.types import State
from vidseg_trackers.cutie.bucket import MemoryFrame
from vidseg_trackers.cutie.memory import Memory
from vidseg_trackers.cutie.network import Cutie, ImageFeatures
from vidseg_trackers.cutie.options import CutieOptions
from vidseg_trackers.xmem.network import aggregate, aggregate_probabilities

Mask: TypeAlias = "Tensor | npt.NDArray[np.bool_] | npt.NDArray[np.float32]"
What = Literal["all", "non_permanent", "sensory"]


class InferenceCore:
    """The state of one video: objects in the order in which they joined, sensory memory, memory, clocks."""

    def __init__(self, network: Cutie, options: CutieOptions | None = None) -> None:
        """A core around a network in evaluation mode, on its device and in its dtype."""
        self.network, self.options = network, options or CutieOptions()
        self.memory = Memory(self.options)
        self.stagger = _stagger(self.options)
        self._official = self.options.memory == "official"
        self.reset()

    def reset(self) -> None:
        """Forget everything, ids included."""
        self.memory.clear()
        self.ids: list[int] = []
        self.sensory: dict[int, Tensor] = {}
        self._previous: Tensor | None = None  # (B, n, H, W): the last masks, in the order of ids
        self._time = -1
        self._last_memory = 0

    @torch.inference_mode()
    def step(
        self,
        image: Float[Tensor, "3 H W"],
        masks: Mapping[int, Mask] | None = None,
        *,
        end: bool = False,
        permanent: bool = False,
        alone: bool = False,
    ) -> Float[Tensor, "N1 h w"]:
        """One frame: probabilities of the background and of every object of ``ids``.

        Args:
            image: RGB in 0..1, any size, the same for all frames.
            masks: masks (H, W), 0/1 or soft, of new objects (they join ``ids``) and of known ones (which they correct).
                The other known objects are propagated and give way to the given masks.
            end: the last frame: nothing is memorised, which changes no result.
            permanent: memorise this frame for ever (see ``max_permanent_frames``).
            alone: the frame is memorised for the given objects, all of which are known, and no other one, unless it is
                time to memorise a frame anyway.

        Returns:
            Probabilities that sum to one, of the size of the image; without an object one channel of zeros, of the
            padded size where ``masks`` is empty and ``memory=official``, as in the published code.

        Raises:
            UsageError: an image or a mask of another shape.
        """
        size = tuple(image.shape[-2:])
        self._check(image, masks)
        device = self.network.pix_feat_proj.weight.device
        image = image.to(device, torch.float32)
        inner = self._inner_size(*size)
        if inner != size:
            image = F.interpolate(image[None], inner, mode="bilinear", align_corners=False)[0]
        self._time += 1
        image = _pad(image[None])
        if masks is not None and not masks and self._official:
            return torch.zeros(1, *image.shape[-2:], device=device)
        given = {i: _pad(_resized(mask, inner, device)) for i, mask in (masks or {}).items()}
        if self.options.flip_aug:
            image = torch.cat([image, image.flip(-1)])
        result = _unpad(self._step(image, given, end, permanent, alone), inner)
        if inner != size:
            result = F.interpolate(result, size, mode="bilinear", align_corners=False)
        return result[0]

    def _step(self, image: Tensor, given: Mapping[int, Tensor], end: bool, permanent: bool, alone: bool) -> Tensor:
        """Probabilities (1, N+1, H, W) of the padded image; the second image of a batch is the mirrored one."""
        since = self._time - self._last_memory
        due = since >= self.options.mem_every
        remember = (due or bool(given)) and not end
        known = list(self.ids)
        complete = bool(given) and all(i in given for i in known)
        joined = [i for i in given if i not in known]
        segment = not given or (bool(known) and (bool(joined) or not complete))
        features = self.network.encode_image(image)
        predicted: Tensor | None = None
        if segment and self.memory.buckets:
            predicted = self._segment(features, update_sensory=since in self.stagger and not end)
        self.ids += joined
        if given:
            probabilities = self._merge(predicted, known, given)
        elif predicted is not None:
            probabilities = predicted
        else:
            return torch.zeros(1, 1, *image.shape[-2:], device=image.device)
        masks = probabilities[:, 1:]
        self._previous = torch.cat([masks, masks.flip(-1)]) if len(image) == 2 else masks
        if remember or permanent:
            self._memorise(features, self._previous, permanent, given if alone and not due and not complete else None)
        return probabilities

    def _segment(self, features: ImageFeatures, update_sensory: bool) -> Tensor:
        h, w = features.key.shape[-2:]
        readouts: dict[int, Tensor] = {}
        for ids, rows in self.memory.read(_rows(features.key), _rows(features.selection)):
            values = rows.transpose(2, 3).unflatten(3, (h, w))
            step = len(ids) if self.options.chunk_size == -1 else self.options.chunk_size
            for low in range(0, len(ids), step):
                part = ids[low : low + step]
                fused = self.network.fuse(
                    features, values[:, low : low + step], self._sensory_of(part, features), self._last_masks(part)
                )
                memory = torch.stack([self.memory.object_memory[i] for i in part], 1)
                read = self.network.read_objects(fused, memory)
                readouts |= dict(zip(part, read.unbind(1), strict=True))
        readout = torch.stack([readouts[i] for i in self.ids], 1)
        sensory = self._sensory_of(self.ids, features)
        logits, sensory = self.network.segment(features, readout, sensory, update_sensory=update_sensory)
        if update_sensory:
            self._keep_sensory(sensory)
        logits = aggregate(torch.sigmoid(logits))
        result = torch.softmax(F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False), 1)
        return (result[:1] + result[1:].flip(-1)) / 2 if len(result) == 2 else result

    def _merge(self, predicted: Tensor | None, known: list[int], given: Mapping[int, Tensor]) -> Tensor:
        """Given masks are taken as they are; predictions give way to them."""
        free = 1 - torch.stack(list(given.values())).amax(0)
        channels = []
        for i in self.ids:
            if i in given:
                channels.append(given[i])
            elif predicted is not None and i in known:
                channels.append(predicted[:, 1 + known.index(i)] * free)
            else:
                channels.append(torch.zeros_like(free))
        return aggregate_probabilities(torch.stack(channels, 1))

    def _memorise(self, features: ImageFeatures, masks: Tensor, permanent: bool, only: Collection[int] | None) -> None:
        before, sensory = self.sensory, self._sensory_of(self.ids, features)
        value, sensory, summaries = self.network.encode_mask(features, sensory, masks)
        self._keep_sensory(sensory)
        if only is not None:
            self.sensory |= {i: one for i, one in before.items() if i not in only}
        rows = value.permute(0, 1, 3, 4, 2).flatten(2, 3)
        self.memory.add(
            MemoryFrame(_rows(features.key), _rows(features.shrinkage), _rows(features.selection)),
            dict(zip(self.ids, rows.unbind(1), strict=True)),
            dict(zip(self.ids, summaries.unbind(1), strict=True)),
            permanent=permanent,
            only=only,
        )
        if only is None:
            self._last_memory = self._time

    def _last_masks(self, ids: Iterable[int]) -> Tensor:
        """The last masks of objects. After a removal the published code takes those of the shifted channels."""
        assert self._previous is not None  # whoever is in memory had a mask
        return self._previous[:, [self.ids.index(i) for i in ids]]

    def _sensory_of(self, ids: Iterable[int], features: ImageFeatures) -> Tensor:
        b, _, h, w = features.pixel.shape
        fresh = features.key.new_zeros(b, self.network.config.pixel_dim, h, w)
        return torch.stack([self.sensory.get(i, fresh) for i in ids], 1)

    def _keep_sensory(self, sensory: Tensor) -> None:
        # one memory layout whatever the kernels gave, so that a restored state continues bit-identically
        self.sensory = {i: one.contiguous() for i, one in zip(self.ids, sensory.unbind(1), strict=True)}

    def skip(self) -> None:
        """A frame that shows nothing: only time goes on."""
        self._time += 1

    def remove(self, ids: Iterable[int]) -> None:
        """Forget objects; unknown ids are ignored."""
        gone = set(ids)
        rows = [row for row, i in enumerate(self.ids) if i not in gone]
        self.ids = [self.ids[row] for row in rows]
        if self._previous is not None and not self._official:
            self._previous = self._previous[:, rows]
        self.sensory = {i: one for i, one in self.sensory.items() if i not in gone}
        self.memory.remove(gone)

    def clear(self, what: What = "all") -> None:
        """Forget a part: ``all`` memory, what is ``non_permanent`` in it, or the ``sensory`` memory.

        With ``all`` the ids go too; the published code keeps them registered.

        Raises:
            UsageError: another word.
        """
        if what not in get_args(What):
            raise UsageError(f"clear {what!r}: allowed are {', '.join(get_args(What))}")
        if what == "non_permanent":
            self.memory.keep_permanent()
        else:
            self.sensory = {}
        if what == "all":
            self.memory.clear()
            if not self._official:
                self.ids, self._previous = [], None
        self._time, self._last_memory = -1, 0

    def _inner_size(self, height: int, width: int) -> tuple[int, int]:
        limit, short = self.options.max_internal_size, min(height, width)
        if not 0 < limit < short:
            return height, width
        return int(height / short * limit), int(width / short * limit)

    def _check(self, image: Tensor, masks: Mapping[int, Mask] | None) -> None:
        if image.ndim != 3 or image.shape[0] != 3:
            raise UsageError(f"image of shape {tuple(image.shape)}: RGB (3, H, W) is expected")
        for i, mask in (masks or {}).items():
            if tuple(mask.shape) != tuple(image.shape[-2:]):
                raise UsageError(
                    f"object {i}: the mask has shape {tuple(mask.shape)}, the image {tuple(image.shape[-2:])}"
                )
        padded = tuple(-(-side // 16) * 16 for side in self._inner_size(*image.shape[-2:]))
        if self._previous is not None and self.ids and padded != tuple(self._previous.shape[-2:]):
            height, width = self._previous.shape[-2:]
            raise UsageError(f"image of {padded[1]}x{padded[0]} (padded), the last had {width}x{height}: one size only")

    def state_dict(self) -> State:
        """All state as tensors and scalars."""
        state: State = prefixed("memory.", self.memory.state_dict())
        state |= {f"sensory.{i}": one.clone() for i, one in self.sensory.items()}
        state |= {"time": self._time, "last_memory": self._last_memory}
        state["ids"] = torch.tensor(self.ids, dtype=torch.int64)
        if self._previous is not None:
            state["previous"] = self._previous.contiguous()
        return state

    def load_state_dict(self, state: State, device: torch.device) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.reset()
        tensors = {k: v.to(device, copy=True) for k, v in state.items() if isinstance(v, Tensor)}
        self.ids = tensors["ids"].tolist()
        self.sensory = {int(k.split(".")[1]): v for k, v in tensors.items() if k.startswith("sensory.")}
        self._previous = tensors.get("previous")
        self._time, self._last_memory = int(state["time"]), int(state["last_memory"])
        self.memory.load_state_dict(nested("memory.", state), device)


def _stagger(options: CutieOptions) -> frozenset[int]:
    """Frames after a memory frame on which the decoder updates the sensory memory."""
    if options.stagger_updates >= options.mem_every:
        return frozenset(range(1, options.mem_every + 1))
    steps = np.round(np.linspace(1, options.mem_every, options.stagger_updates))
    return frozenset(int(step) for step in steps)


def _resized(mask: Mask, size: tuple[int, int], device: torch.device) -> Float[Tensor, "1 h w"]:
    """Hard masks keep hard edges, soft ones are interpolated."""
    image = torch.as_tensor(mask).to(device, torch.float32)[None, None]
    if tuple(image.shape[-2:]) == size:
        return image[0]
    if ((image == 0) | (image == 1)).all():
        return F.interpolate(image, size, mode="nearest-exact")[0]
    return F.interpolate(image, size, mode="bilinear", align_corners=False)[0]


def _margins(height: int, width: int) -> tuple[int, int, int, int]:
    """Zeros left, right, top, bottom up to multiples of 16; the odd pixel right and at the bottom."""
    x, y = -width % 16, -height % 16
    return x // 2, x - x // 2, y // 2, y - y // 2


def _pad(x: Float[Tensor, "*c h w"]) -> Float[Tensor, "*c H W"]:
    return F.pad(x, _margins(x.shape[-2], x.shape[-1]))


def _unpad(x: Float[Tensor, "*c H W"], size: tuple[int, int]) -> Float[Tensor, "*c h w"]:
    left, _, top, _ = _margins(*size)
    return x[..., top : top + size[0], left : left + size[1]]


def _rows(x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B h*w C"]:
    """Pixels as contiguous rows."""
    return x.flatten(2).transpose(1, 2).contiguous()
