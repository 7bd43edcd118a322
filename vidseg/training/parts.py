"""Which parts of a network learn, and what a recipe adds to it: the training variants of the HQ-SAM paper."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from vidseg.sam.build import build_sam
from vidseg.sam.config import SamConfig
from vidseg.sam.hq import HQ_PARTS
from vidseg.sam.lora import add_lora
from vidseg.sam.model import Sam
from vidseg.sam2.config import Sam2Config
from vidseg.sam2.model import Sam2
from vidseg.training.loop import set_trainable
from vidseg.training.recipe import Part, Recipe
from vidseg.training.sam2_network import let_hq_learn

PREFIXES: dict[Part, tuple[str, ...]] = {
    "hq": tuple(f"mask_decoder.{part}." for part in (*HQ_PARTS, "pyramid")),
    "sam": ("image_encoder.", "prompt_encoder.", "mask_decoder."),
    "decoder": ("mask_decoder.",),
    "output-token": ("mask_decoder.mask_tokens.", "mask_decoder.output_hypernetworks_mlps.0."),
}
"""Parameters of the parts that `learn` names. The output token is that of the single mask, but all four are one
parameter."""
_ADDED = re.compile(r"\.(context_tokens|lora_[qv]|attn_adapter|mlp_adapter)\.")
_FEATURES = {"decoder": "embedding_maskfeature", "final": "embedding_encoder", "early": "compress_vit_feat"}


def is_new(name: str) -> bool:
    """Whether a parameter is one that a plain SAM does not have, so that no file to start from needs to have it."""
    return name.startswith(PREFIXES["hq"]) or _ADDED.search(name) is not None


def has_hq(recipe: Recipe) -> bool:
    """Whether the recipe's network has the HQ branch: the recipes that teach parts of SAM have none."""
    return "hq" in recipe.learn


def learns_all(recipe: Recipe, config: SamConfig) -> bool:
    """Whether everything learns but what is `frozen`: a SAM from the beginning, or SAM and HQ parts together."""
    return recipe.whole or (has_hq(recipe) and not config.hq)


def network_config(recipe: Recipe, config: SamConfig) -> SamConfig:
    """The sizes of the network with what the recipe changes in it.

    Raises:
        UsageError: changes that cannot be made together.
    """
    hq = config.hq and has_hq(recipe)
    if config.hq and not hq:
        config = replace(config, hq=False, output="sam", hq_mix=False)
    if "fusion" in recipe.ablate and hq:
        config = replace(config, hq_fusion=False)
    return replace(
        config,
        hq_pyramid=recipe.pyramid or config.hq_pyramid,
        hq_attends=recipe.attend or config.hq_attends,
        context_tokens=recipe.context_tokens or config.context_tokens,
        adapter_dim=recipe.adapters.width if recipe.adapters else config.adapter_dim,
    )


def build_network(recipe: Recipe, config: SamConfig) -> Sam:
    """The network of ``config`` with PyTorch's initial weights, and what is not part of any configuration: LoRA."""
    sam = build_sam(config)
    if recipe.lora is not None:
        add_lora(sam, recipe.lora.rank)
    return sam


def let_learn(sam: Sam, recipe: Recipe) -> None:
    """Let those parameters learn that the recipe says; features of the HQ branch that it leaves out give zero."""
    if learns_all(recipe, sam.config):
        frozen = tuple(recipe.frozen)
        set_trainable(sam, lambda name: not (frozen and name.startswith(frozen)))
        return
    prefixes = tuple(prefix for part in recipe.learn for prefix in PREFIXES[part])
    set_trainable(sam, lambda name: name.startswith(prefixes) or _ADDED.search(name) is not None)
    for feature in recipe.ablate:
        if feature in _FEATURES:
            silence(sam, _FEATURES[feature])


@torch.no_grad()
def silence(sam: Sam, stack: str) -> None:
    """Make a stack of the HQ branch give zero for good: the feature is left out, the file keeps its format."""
    module = cast(nn.Sequential, getattr(sam.mask_decoder, stack))
    module.requires_grad_(False)
    for parameter in module[3].parameters():
        parameter.zero_()


def trained_names(sam: nn.Module) -> Collection[str]:
    """The parameters that learn."""
    return [name for name, parameter in sam.named_parameters() if parameter.requires_grad]


def describe_parameters(sam: nn.Module) -> dict[str, Any]:
    """Name and shape of what learns, and the size of that and of all parameters in MiB of float32."""
    parameters = dict(sam.named_parameters())
    trainable = trained_names(sam)
    count = sum(parameters[name].numel() for name in trainable)
    total = sum(parameter.numel() for parameter in parameters.values())
    return {
        "trainable": {name: list(parameters[name].shape) for name in trainable},
        "trainable_mib": 4 * count / 2**20,
        "total_mib": 4 * total / 2**20,
    }


def describe_recipe(recipe: Recipe, config: SamConfig | Sam2Config) -> dict[str, Any]:
    """:func:`describe_parameters` of the network that an HQ recipe trains, without weights, data or memory."""
    if isinstance(config, Sam2Config):
        with torch.device("meta"):
            net = Sam2(config)
        let_hq_learn(net)
        return describe_parameters(net)
    with torch.device("meta"):
        sam = build_network(recipe, replace(config, objectness=False))
    let_learn(sam, recipe)
    return describe_parameters(sam)
