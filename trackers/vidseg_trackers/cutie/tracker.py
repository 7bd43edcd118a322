"""The ``cutie`` tracker: follows masks with pixel memory and object memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vidseg.backbones.imagenet import IMAGENET_MEAN, IMAGENET_STD
from vidseg.state import nested, prefixed
from vidseg.types import State
from vidseg_trackers.cutie.inference_core import InferenceCore
from vidseg_trackers.cutie.network import Cutie
from vidseg_trackers.cutie.options import CutieOptions
from vidseg_trackers.cutie.weights import load_network
from vidseg_trackers.mask_tracking.preprocess import InnerGeometry
from vidseg_trackers.mask_tracking.tracker import Look, MaskTracker


def build(options: Mapping[str, object], *, device: torch.device, dtype: torch.dtype, offline: bool) -> CutieTracker:
    """Entry point ``cutie``.

    Raises:
        UsageError: unknown or wrong options.
        WeightsError: the weights are missing, damaged or no Cutie.
    """
    chosen = CutieOptions.from_mapping(options)
    return CutieTracker(load_network(chosen.weights, device=device, dtype=dtype, offline=offline), chosen)


class CutieTracker(MaskTracker):
    """Cutie as a tracker. A corrected frame becomes permanent memory of the corrected objects, and of no other one."""

    name = "cutie"
    can_remove = True

    def __init__(self, network: Cutie, options: CutieOptions | None = None) -> None:
        """A tracker around a network in evaluation mode, on its device and in its dtype; similarities are float32."""
        self.options = options or CutieOptions()
        super().__init__(
            network.pix_feat_proj.weight.device,
            size=self.options.size,
            antialias=True,
            absence=self.options.absence,
            forget_after=self.options.forget_after,
        )
        self.core = InferenceCore(network, self.options)

    @property
    def ids(self) -> list[int]:
        """The objects that are followed."""
        return self.core.ids

    def _restart(self) -> None:
        self.core.reset()

    def _propagate(self, look: Look, masks: Mapping[int, Tensor], geometry: InnerGeometry) -> Tensor:
        mean, std = (torch.tensor(v, device=self.device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        corrected = any(i in self.core.ids for i in masks)
        alone = corrected and self.options.memory == "correct" and all(i in self.core.ids for i in masks)
        given = {i: geometry.unpad(mask) for i, mask in masks.items()}
        return self.core.step((look.image * std + mean)[0], given or None, permanent=corrected, alone=alone)

    def _skip(self) -> None:
        self.core.skip()

    def _remove(self, ids: Sequence[int]) -> None:
        self.core.remove(ids)

    def state_dict(self) -> State:
        """All state; a tracker of the same options and video that loads it continues bit-identically."""
        return super().state_dict() | prefixed("core.", self.core.state_dict())

    def load_state_dict(self, state: State) -> None:
        """Restore what :meth:`state_dict` gave; call :meth:`start` before."""
        super().load_state_dict(state)
        self.core.load_state_dict(nested("core.", state), self.device)
