"""A recipe becomes a run: network, data, objective and loop put together."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from vidseg.datasets.pairs import Image, Item, Mask, Reader, Sample, find_clips, find_pairs, load, load_cutout
from vidseg.errors import PartialError, UsageError, WeightsError
from vidseg.files import IMAGE_SUFFIXES, data_files
from vidseg.loading import locate_sam
from vidseg.names import printable
from vidseg.sam.added_weights import save_added
from vidseg.sam.build import save_sam
from vidseg.sam.config import Output, SamConfig, named_config
from vidseg.sam.convert import SAM, official_sam_state
from vidseg.sam.image_encoder import CompactEncoder
from vidseg.sam.model import Sam
from vidseg.sam2.adapter import Sam2AsSam
from vidseg.sam2.config import Sam2Config
from vidseg.sam2.loading import save_sam2
from vidseg.sam2.model import Sam2
from vidseg.training.ahead import Ahead
from vidseg.training.batches import Batch, make_batch
from vidseg.training.check import check_items, check_readable, describe_items
from vidseg.training.folders import epoch_indices, find_sets, folder_batch
from vidseg.training.loop import Loop
from vidseg.training.objectives import base_loss, mask_loss, whole_loss
from vidseg.training.own_images import embedded_config
from vidseg.training.parts import build_network, has_hq, is_new, learns_all, let_learn, network_config, trained_names
from vidseg.training.pretrained import load_imagenet
from vidseg.training.quality import Quality, measure, sam_predictor
from vidseg.training.recipe import Recipe, SceneData
from vidseg.training.resume import flatten
from vidseg.training.sam2_network import sam2_network_of, start_sam2
from vidseg.training.scenes import SceneMaker
from vidseg.training.schedule import BatchRandomness
from vidseg.training.splits import dev_clips, held_out, keep_for_validation, shows_clip
from vidseg.training.validation_table import ValidationTable
from vidseg.weights.catalog import CATALOG
from vidseg.weights.fetch import file_digest
from vidseg.weights.fit import load_finished
from vidseg.weights.read import read_weights

BatchMaker = Callable[[BatchRandomness], Batch]


def find_items(data: SceneData) -> tuple[list[Item], list[Item]]:
    """(training, choosing): still images and frames of clips, without what shows a clip of the development third."""
    videos = data.root / "videos"
    dev = dev_clips(videos) if videos.is_dir() else ()
    stills = find_pairs(data.root / "train" / "images", data.root / "train" / "masks")
    _compare_sources(stills, data)
    stills = [item for item in stills if not shows_clip(item.name, dev) and data.weights.get(item.source, 0) > 0]
    choosing = [item for item in stills if held_out(item.name, data.held_out)]
    training = [item for item in stills if not held_out(item.name, data.held_out)]
    if data.weights.get("video", 0) > 0 and videos.is_dir():
        # Only clips that the training images show already: frames of the others are in the measuring set.
        shown = {item.name.partition("_")[2].rpartition("-")[0] for item in stills}
        training += find_clips(videos, lambda name: name in shown and name not in dev, data.clip_stride)
    return training, choosing


def _compare_sources(stills: Sequence[Item], data: SceneData) -> None:
    """Say which sources of images have no weight, and which weights no image."""
    there = Counter(item.source for item in stills)
    log = logging.getLogger("vidseg")
    if unknown := {source: count for source, count in there.items() if source not in data.weights}:
        names = ", ".join(f"{source} ({count} images)" for source, count in unknown.items())
        log.warning("%s", printable(f"{data.root}: sources without a weight in the recipe are left out: {names}"))
    if unused := [s for s, weight in data.weights.items() if weight > 0 and s not in there and s != "video"]:
        log.warning("recipe: scenes.weights: no image of %s", printable(", ".join(unused)))


def load_cutouts(data: SceneData) -> list[tuple[Image, Mask]]:
    """The cut-outs below the root, decoded; none when the recipe does not want them."""
    folder = data.root / "cutouts"
    wanted = data.cutouts and folder.is_dir()
    return [load_cutout(path, 320) for path in data_files(folder, IMAGE_SUFFIXES)] if wanted else []


def scene_batches(recipe: Recipe, data: SceneData, items: list[Item]) -> BatchMaker:
    """Batches of scenes; everything is decoded once and kept in memory."""
    samples: dict[str, list[Sample]] = {}
    for item in items:
        samples.setdefault(item.source, []).append(load(item, data.max_side))
    maker = SceneMaker(samples, data.weights, load_cutouts(data), recipe.scene, data.coarse)

    def make(draw: BatchRandomness) -> Batch:
        height, width = recipe.shapes[int(draw.rng.integers(len(recipe.shapes)))]
        return make_batch(draw.rng, maker, recipe.images_per_batch, recipe.prompts, height, width, recipe.prompt_mix)

    return make


def network_of(recipe: Recipe, hq: bool) -> SamConfig | Sam2Config:
    """The network's sizes. Raises ``UsageError`` when it does not fit the stage (`train base` or `train hq`)."""
    if (sam2 := sam2_network_of(recipe, hq)) is not None:
        return sam2
    config = recipe.network
    if isinstance(config, str):
        embedded = config in CATALOG and CATALOG[config].embedded  # its sizes are in its file alone
        config = embedded_config(config) if embedded else named_config(config)
    assert isinstance(config, SamConfig)  # the others are networks of SAM 2
    if config.hq != hq and (not hq or has_hq(recipe)):
        wanted = "with" if hq else "without"
        raise UsageError(
            f"recipe: this stage trains a network {wanted} the HQ branch; set network.hq to {str(hq).lower()}"
        )
    if not hq and (recipe.learn != ("hq",) or recipe.lora or recipe.adapters or recipe.context_tokens):
        raise UsageError("recipe: 'learn', 'lora', 'adapters' and 'context_tokens' are for `vidseg train hq`")
    if recipe.whole and not hq:
        raise UsageError("recipe: 'whole' trains SAM and the HQ parts together; this stage has no HQ parts")
    return network_config(recipe, config) if hq else config


def start(recipe: Recipe, config: SamConfig) -> Sam:
    """The network at the beginning of the training, with the right parameters left to learn.

    It has no judge of objects: that one is fitted to the finished network (``vidseg train objectness``).
    """
    torch.manual_seed(recipe.loop.seed)
    sam = build_network(recipe, replace(config, objectness=False))
    if recipe.start is not None:
        _, path = locate_sam(recipe.start)
        tensors = official_sam_state(read_weights(path, SAM))
        tensors = {k: v for k, v in tensors.items() if not k.startswith("objectness.")}
        load_finished(sam, tensors, str(recipe.start), is_new)
    elif config.hq or not has_hq(recipe):
        raise UsageError("recipe: this stage goes on from a finished SAM: name its weights as 'start'")
    elif isinstance(sam.image_encoder, CompactEncoder):
        load_imagenet(sam.image_encoder.trunk)
    let_learn(sam, recipe)
    return sam.train() if learns_all(recipe, config) else sam.eval()


def result_name(recipe: Recipe, config: SamConfig | Sam2Config) -> str:
    """The name of the weights in the folder of a training.

    `.pth` is for what the official code reads too, an HQ-SAM as published. A `.safetensors` file says what it holds.
    """
    if isinstance(config, Sam2Config):
        return "sam2_hq.safetensors"
    changed = config.hq_pyramid or config.hq_attends or config.context_tokens or config.adapter_dim
    official = config.hq and config.encoder != "compact" and not changed
    return "sam_hq.pth" if official else "weights.safetensors"


def save_result(sam: Sam | Sam2, recipe: Recipe, path: Path) -> None:
    """The whole network, in half precision if it is a compact one; of LoRA and adapters only what was added."""
    if isinstance(sam, Sam2):
        save_sam2(sam, path)
    elif recipe.lora or recipe.adapters:
        save_added(sam, trained_names(sam), path)
    else:
        save_sam(sam, path, half=sam.config.encoder == "compact")


def train(
    recipe: Recipe, folder: Path, hq: bool, resume: bool, device: torch.device, rank: int = 0, world: int = 1
) -> Path:
    """Run a recipe; returns the file with the (averaged) weights in ``folder``.

    With ``world`` > 1 the default process group of ``torch.distributed`` must be there; every process calls this. Its
    timeout must be longer than a validation, which the first process does while the others wait.

    Raises:
        UsageError: a recipe that cannot be run, or ``resume`` with another one than the checkpoint was made with.
        InputError: data that is missing or wrong, before the first step.
        WeightsError: weights to start from, or a checkpoint, that do not fit; a loss that is not finite.
        PartialError: done, but images that could not be read were replaced by others.
    """
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    config, loop_config = network_of(recipe, hq), recipe.loop
    result = folder / result_name(recipe, config)
    if recipe.start is not None and result.resolve() == recipe.start.resolve():
        raise UsageError(f"recipe: start {recipe.start} would be replaced by the result: choose another --output")
    if recipe.scenes is not None:
        training, choosing = find_items(recipe.scenes)
    else:
        assert recipe.folders is not None  # checked by Recipe
        data = recipe.folders
        training = find_sets(data.root, data.sets, data.sample, recipe.loop.seed)
        choosing = find_sets(data.root, data.validation)
        if data.held_out:
            aside = keep_for_validation(training, data.held_out)
            choosing += aside
            training = [item for item in training if item not in set(aside)]
    check_items(list(dict.fromkeys([*training, *choosing])))
    check_readable(choosing)
    logging.getLogger("vidseg").info("%d images for training, %d for validation", len(training), len(choosing))
    sam: Sam | Sam2 = start_sam2(recipe, config) if isinstance(config, Sam2Config) else start(recipe, config)
    sam = sam.to(device)
    read = Reader(training)
    if recipe.scenes is not None:
        batches = scene_batches(recipe, recipe.scenes, training)
    else:
        size, seed = sam.config.image_size, recipe.loop.seed
        if recipe.unit == "epoch":
            per_epoch = max(1, len(training) // (recipe.images_per_batch * world * loop_config.accumulate))
            loop_config = loop_config.times(per_epoch)
        epoch_indices(seed, 0, recipe.images_per_batch, len(training))  # refuses too few images now

        def batches(draw: BatchRandomness) -> Batch:
            chosen = epoch_indices(seed, draw.batch, recipe.images_per_batch, len(training))
            return folder_batch(draw.rng, [training[i] for i in chosen], size, data.scale, read)

    def make(draw: BatchRandomness) -> tuple[bool, Batch]:
        return bool(draw.rng.random() < recipe.second_round_share), batches(draw)

    ahead = Ahead(make, loop_config, recipe.workers, rank, world)

    def loss(draw: BatchRandomness) -> Mapping[str, Tensor]:
        again, batch = ahead(draw)
        batch = batch.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.autocast == "bfloat16"):
            if isinstance(sam, Sam2) or (hq and not recipe.whole):
                return mask_loss(sam, batch, recipe.points, draw.torch, recipe.boundary_only)
            if hq:
                return whole_loss(sam, batch, recipe.points, again, draw.torch, recipe.quality)
            return base_loss(sam, batch, recipe.points, again, draw.torch)

    made_of = describe(recipe, config, hq, world, training)
    loop = Loop(sam, loss, loop_config, folder, recipe.lr_factors, rank, world, made_of)
    if resume:
        try:
            loop.resume()
        except WeightsError as error:
            kept = f"; the weights of the last validation are in {result}: name them as 'start' of a new training"
            raise WeightsError(f"{error}{kept if result.is_file() else ''}") from error

    def scores_now() -> dict[str, float]:
        outputs = get_args(Output) if config.hq else ("sam",)
        drawer = Sam2AsSam(sam) if isinstance(sam, Sam2) else sam
        scores: dict[str, float] = {}
        for output, parts in measure(sam_predictor(drawer, outputs), choosing).items():
            quality = Quality.of(parts)
            scores |= {f"{output}_miou": quality.miou, f"{output}_mbiou": quality.mbiou}
        return scores

    table = ValidationTable()

    def validate(step: int) -> dict[str, float]:
        save_result(sam, recipe, result)
        scores = scores_now() if choosing else {}
        table.add(step, scores)
        return scores

    if choosing and rank == 0 and loop.step == 0:
        table.add(0, scores_now())
    loop.run(validate)
    table.end(result)
    if read.damaged and rank == 0:
        first = next(iter(read.damaged.values()))
        raise PartialError(f"{len(read.damaged)} of {len(training)} images were replaced ({first}); done: {result}")
    return result


_FREE = {
    *("loop.steps", "loop.stop", "loop.save_every", "loop.validate_every", "loop.log_every", "loop.tensorboard"),
    *("threads", "workers", "start", "network", "scenes.root", "folders.root", "folders.validation"),
}
"""Settings that a resumed training may have changed: its end, and what decides no weights."""


def describe(
    recipe: Recipe, config: SamConfig | Sam2Config, hq: bool, world: int, items: Sequence[Item]
) -> dict[str, Any]:
    """Everything that decides the trained weights, by name, in one level."""
    values = {name: value for name, value in flatten(asdict(recipe)).items() if name.split(".")[0] != "network"}
    values = {name: value for name, value in values.items() if name not in _FREE}
    values["loop.accumulate"] = recipe.loop.accumulate * world  # processes share the batches of a step
    values["stage"] = "hq" if hq else "base"
    if recipe.start is not None:
        values["start"] = file_digest(locate_sam(recipe.start)[1], "sha256")
    values["data"] = describe_items(items)
    return values | flatten(asdict(config), "network.")
