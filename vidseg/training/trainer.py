"""A recipe becomes a run: network, data, objective and loop put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

import torch
from torch import Tensor, nn

from vidseg.errors import UsageError, WeightsError
from vidseg.sam.build import build_sam, save_sam
from vidseg.sam.compact_encoder import CompactEncoder
from vidseg.sam.config import Output, SamConfig, named_config
from vidseg.sam.model import Sam
from vidseg.training.batches import Batch, make_batch
from vidseg.training.folders import epoch_indices, find_sets, folder_batch
from vidseg.training.items import Image, Item, Mask, Sample, find_clips, find_pairs, load, load_cutout
from vidseg.training.loop import Draw, Loop, matching, set_trainable
from vidseg.training.objectives import base_loss, hq_loss, whole_loss
from vidseg.training.pretrained import load_imagenet
from vidseg.training.quality import Quality, measure, sam_predictor
from vidseg.training.recipe import Recipe, SceneData
from vidseg.training.scenes import SceneMaker
from vidseg.training.splits import dev_clips, held_out, shows_clip
from vidseg.weights.read import read_weights

#: Parameters that HQ-SAM adds to the mask decoder, and the only ones that `train hq` changes.
HQ_PARTS = tuple(
    f"mask_decoder.{part}"
    for part in ("hf_token", "hf_mlp", "compress_vit_feat", "embedding_encoder", "embedding_maskfeature")
)
_FEATURES = {"decoder": "embedding_maskfeature", "final": "embedding_encoder", "early": "compress_vit_feat"}

BatchMaker = Callable[[Draw], Batch]


def find_items(data: SceneData) -> tuple[list[Item], list[Item]]:
    """(training, choosing): still images and frames of clips, without what shows a clip of the development third."""
    videos = data.root / "videos"
    dev = dev_clips(videos) if videos.is_dir() else ()
    stills = find_pairs(data.root / "train" / "images", data.root / "train" / "masks")
    stills = [item for item in stills if not shows_clip(item.name, dev) and data.weights.get(item.source, 0) > 0]
    choosing = [item for item in stills if held_out(item.name, data.held_out)]
    training = [item for item in stills if not held_out(item.name, data.held_out)]
    if data.weights.get("video", 0) > 0 and videos.is_dir():
        # Only clips that the training images show already: frames of the others are in the measuring set.
        shown = {item.name.partition("_")[2].rpartition("-")[0] for item in stills}
        training += find_clips(videos, lambda name: name in shown and name not in dev, data.clip_stride)
    return training, choosing


def load_cutouts(data: SceneData) -> list[tuple[Image, Mask]]:
    """The cut-outs below the root, decoded; none when the recipe does not want them."""
    folder = data.root / "cutouts"
    return [load_cutout(p, 320) for p in sorted(folder.glob("*.webp"))] if data.cutouts and folder.is_dir() else []


def scene_batches(recipe: Recipe, data: SceneData, items: list[Item]) -> BatchMaker:
    """Batches of scenes; everything is decoded once and kept in memory."""
    samples: dict[str, list[Sample]] = {}
    for item in items:
        samples.setdefault(item.source, []).append(load(item, data.max_side))
    maker = SceneMaker(samples, data.weights, load_cutouts(data), recipe.scene, data.coarse)

    def make(draw: Draw) -> Batch:
        height, width = recipe.shapes[int(draw.rng.integers(len(recipe.shapes)))]
        return make_batch(draw.rng, maker, recipe.images, recipe.prompts, height, width, recipe.mix)

    return make


def network_of(recipe: Recipe, hq: bool) -> SamConfig:
    """The network's sizes. Raises ``UsageError`` when it does not fit the stage (`train base` or `train hq`)."""
    config = named_config(recipe.network) if isinstance(recipe.network, str) else recipe.network
    if config.hq != hq:
        wanted = "with" if hq else "without"
        raise UsageError(
            f"recipe: this stage trains a network {wanted} the HQ branch; set network.hq to {str(hq).lower()}"
        )
    if recipe.whole and not hq:
        raise UsageError("recipe: 'whole' trains SAM and the HQ parts together; this stage has no HQ parts")
    return replace(config, hq_fusion=False) if "fusion" in recipe.without else config


def start(recipe: Recipe, config: SamConfig) -> Sam:
    """The network at the beginning of the training, with the right parameters left to learn."""
    torch.manual_seed(recipe.loop.seed)
    sam = build_sam(config)
    if recipe.start is not None:
        tensors = read_weights(recipe.start).tensors
        tensors = {k: v for k, v in tensors.items() if not k.startswith("objectness.")}  # fitted after the training
        for name, own in sam.state_dict().items():
            if name in tensors and tensors[name].shape != own.shape:
                shapes = f"{tuple(tensors[name].shape)} there, {tuple(own.shape)} here"
                raise WeightsError(f"{recipe.start}: made for another network ({name} is {shapes})")
        result = sam.load_state_dict(tensors, strict=False)
        lacking = [k for k in result.missing_keys if not (config.hq and k.startswith(HQ_PARTS))]
        if wrong := result.unexpected_keys + lacking:
            raise WeightsError(f"{recipe.start}: made for another network (first difference: {wrong[0]})")
    elif config.hq:
        raise UsageError("recipe: the HQ parts are trained on a finished SAM: name its weights as 'start'")
    elif isinstance(sam.image_encoder, CompactEncoder):
        load_imagenet(sam.image_encoder.trunk)
    if config.hq and not recipe.whole:
        set_trainable(sam, matching(HQ_PARTS))
        for feature in recipe.without:
            if feature in _FEATURES:
                silence(sam, _FEATURES[feature])
        return sam.eval()
    frozen = tuple(recipe.frozen)
    set_trainable(sam, lambda name: not (frozen and name.startswith(frozen)))
    return sam.train()


@torch.no_grad()
def silence(sam: Sam, stack: str) -> None:
    """Make a stack of the HQ branch give zero for good: the feature is left out, the file keeps its format."""
    module = cast(nn.Sequential, getattr(sam.mask_decoder, stack))
    module.requires_grad_(False)
    for parameter in module[3].parameters():
        parameter.zero_()


def train(
    recipe: Recipe, folder: Path, hq: bool, resume: bool, device: torch.device, rank: int = 0, world: int = 1
) -> Path:
    """Run a recipe; returns the file with the (averaged) weights in ``folder``.

    With ``world`` > 1 the default process group of ``torch.distributed`` must be there; every process calls this.
    """
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    sam = start(recipe, network_of(recipe, hq)).to(device)
    loop_config = recipe.loop
    if recipe.scenes is not None:
        training, choosing = find_items(recipe.scenes)
        batches = scene_batches(recipe, recipe.scenes, training)
    else:
        assert recipe.folders is not None  # checked by Recipe
        data, size = recipe.folders, sam.config.image_size
        training, choosing = find_sets(data.root, data.sets), find_sets(data.root, data.validation)
        seed = recipe.loop.seed
        if recipe.unit == "epoch":
            per_epoch = max(1, len(training) // (recipe.images * world * loop_config.accumulate))
            loop_config = loop_config.times(per_epoch)

        def batches(draw: Draw) -> Batch:
            chosen = epoch_indices(seed, draw.batch, recipe.images, len(training))
            return folder_batch(draw.rng, [training[i] for i in chosen], size, data.scale)

    def loss(draw: Draw) -> Mapping[str, Tensor]:
        again = bool(draw.rng.random() < recipe.again)
        batch = batches(draw).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.autocast == "bfloat16"):
            if recipe.whole:
                return whole_loss(sam, batch, recipe.points, again, draw.torch, recipe.quality)
            if hq:
                return hq_loss(sam, batch, recipe.points, draw.torch, recipe.boundary)
            return base_loss(sam, batch, recipe.points, again, draw.torch)

    loop = Loop(sam, loss, loop_config, folder, recipe.slow, rank, world)
    if resume:
        loop.resume()
    result = folder / ("weights.safetensors" if sam.config.encoder == "compact" else "sam_hq.pth")

    def validate(step: int) -> dict[str, float]:
        save_sam(sam, result, half=True)
        if not choosing:
            return {}
        outputs = get_args(Output) if hq else ("sam",)
        scores: dict[str, float] = {}
        for output, parts in measure(sam_predictor(sam, outputs), choosing).items():
            quality = Quality.of(parts)
            scores |= {f"{output}_miou": quality.miou, f"{output}_mbiou": quality.mbiou}
        return scores

    loop.run(validate)
    return result
