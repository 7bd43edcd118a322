"""The ``xmem`` tracker: follows masks from the frames where they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from vidseg.state import nested, prefixed
from vidseg.types import State
from vidseg_trackers.mask_tracking.absence import Presence
from vidseg_trackers.mask_tracking.preprocess import InnerGeometry
from vidseg_trackers.mask_tracking.tracker import Look, MaskTracker
from vidseg_trackers.xmem.inference_core import InferenceCore
from vidseg_trackers.xmem.network import KeyFeatures, XMem
from vidseg_trackers.xmem.options import XMemOptions
from vidseg_trackers.xmem.weights import load_network

DEFAULT_WEIGHTS = XMemOptions().weights
_THUMBNAIL = (16, 16)  # what scene cuts are seen on
_MEAN_STD = 0.226  # of the normalisation: brings differences of normalised images back to the scale 0..1


def build(options: Mapping[str, object], *, device: torch.device, dtype: torch.dtype, offline: bool) -> XMemTracker:
    """Entry point ``xmem``.

    Raises:
        UsageError: unknown or wrong options.
        WeightsError: the weights are missing, damaged or no XMem.
    """
    chosen = XMemOptions.from_mapping(options)
    return XMemTracker(load_network(chosen.weights, device=device, dtype=dtype, offline=offline), chosen)


class XMemTracker(MaskTracker):
    """XMem as a tracker. A corrected frame becomes the object's reference frame in memory; others are not affected."""

    name = "xmem"

    def __init__(self, network: XMem, options: XMemOptions | None = None) -> None:
        """A tracker around a network in evaluation mode, on its device and in its dtype; similarities are float32."""
        self.options = options or XMemOptions()
        parameter = network.decoder.pred.weight
        super().__init__(
            parameter.device,
            size=network.config.size if self.options.size is None else self.options.size,
            antialias=self.options.antialias,
            absence=self.options.absence and self.options.memory == "correct",
            forget_after=self.options.forget_after,
        )
        self.dtype = parameter.dtype
        self.online = InferenceCore(network, self.options)
        self._thumbnail: Tensor | None = None
        self._presence = Presence()

    @property
    def ids(self) -> list[int]:
        """The objects that are followed."""
        return self.online.ids

    @property
    def can_remove(self) -> bool:
        """The official memory cannot."""
        return self.options.memory == "correct"

    def _restart(self) -> None:
        self.online.clear()
        self._thumbnail = None
        self._presence = Presence()

    @property
    def looks_ahead(self) -> bool:
        """What the official encoder gives for a frame is too large to wait in numbers (50 MB at 480p)."""
        return self.online.network.config.encoder != "resnet"

    def _notice(self, image: Tensor) -> None:
        if self.options.scene_cut and self._is_cut(image):
            self.online.forget_motion()

    def _see(self, image: Tensor, geometry: InnerGeometry) -> KeyFeatures:
        network, padded = self.online.network, geometry.pad(image)
        return network.encode_key(padded.to(next(network.key_encoder.parameters()).dtype))

    def _propagate(self, look: Look, masks: Mapping[int, Tensor], geometry: InnerGeometry) -> Tensor:
        judge = partial(self._presence.absent, look.image) if self._absence else None
        seen = look.seen or self._see(look.image, geometry)
        probabilities = self.online.step(geometry.pad(look.image).to(self.dtype), masks, judge, seen)
        if masks:
            self._presence.prompted(look.image, masks)
        return geometry.unpad(probabilities)

    def _skip(self) -> None:
        self.online.skip()

    def _remove(self, ids: Sequence[int]) -> None:
        self.online.remove(ids)
        self._presence.forget(ids)

    def state_dict(self) -> State:
        """All state; a tracker of the same options and video that loads it continues bit-identically."""
        state = super().state_dict() | prefixed("online.", self.online.state_dict())
        state |= prefixed("presence.", self._presence.state_dict())
        return state if self._thumbnail is None else state | {"thumbnail": self._thumbnail}

    def load_state_dict(self, state: State) -> None:
        """Restore what :meth:`state_dict` gave; call :meth:`start` before."""
        super().load_state_dict(state)
        self.online.load_state_dict(nested("online.", state), self.device)
        self._presence.load_state_dict(nested("presence.", state), self.device)
        thumbnail = state.get("thumbnail")
        self._thumbnail = thumbnail.to(self.device, copy=True) if isinstance(thumbnail, Tensor) else None

    def _is_cut(self, image: Tensor) -> bool:
        """Does this frame differ from the last by more than the option allows? Remembers the frame."""
        thumbnail = torch.nn.functional.adaptive_avg_pool2d(image, _THUMBNAIL)
        last, self._thumbnail = self._thumbnail, thumbnail
        return last is not None and float((thumbnail - last).abs().mean()) * _MEAN_STD > self.options.scene_cut
