"""A model with the running average of its weights, for a while.

``torch.optim.swa_utils.AveragedModel`` would copy the whole network, frozen parts too (of a ViT-H 2.5 GB), to average
the few parameters that learn.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Averaged:
    """Context in which ``model`` carries ``average`` instead of its own ``trained`` parameters."""

    def __init__(self, model: nn.Module, trained: Mapping[str, nn.Parameter], average: Mapping[str, Tensor]) -> None:
        self.model, self.trained, self.average = model, trained, average
        self.kept: dict[str, Tensor] = {}
        self.mode = model.training

    def __enter__(self) -> nn.Module:
        """Swap the averages in; the model is in evaluation mode."""
        self.kept = {k: self.trained[k].detach().clone() for k in self.average}
        self._set(self.average)
        return self.model.eval()

    def __exit__(self, *_: object) -> None:
        """Put the trained weights back."""
        self._set(self.kept)
        self.model.train(self.mode)

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.trained[name].copy_(value)
