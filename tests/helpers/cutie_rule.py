"""Weights of the Cutie test networks, a rule of the tensor's name, and a network of toy width."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from vidseg_trackers.cutie.config import CutieConfig
from vidseg_trackers.cutie.network import Cutie
from xmem_rule import rule_tensor


def rule_cutie(config: CutieConfig, gains: Sequence[tuple[str, float, float]] = ()) -> Cutie:
    """A network whose every float tensor follows from its name; ``gains``: (name, factor, shift) applied after it."""
    network = Cutie(config)
    state = {
        key: rule_tensor(key, tuple(value.shape)) if value.is_floating_point() and "inv_freq" not in key else value
        for key, value in network.state_dict().items()
    }
    for key, factor, shift in gains:
        state[key] = state[key] * factor + shift
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


@cache
def toy_cutie() -> Cutie:
    """A network of toy width around ResNet-18: every frame takes milliseconds."""
    torch_state = torch.random.get_rng_state()
    config = CutieConfig("resnet18", pixel_dim=32, key_dim=8, queries=4, heads=2, blocks=2, ff_dim=32, up_dim=16)
    network = rule_cutie(config, [("mask_decoder.pred.bias", 1.0, -2.0)])
    torch.random.set_rng_state(torch_state)
    return network
