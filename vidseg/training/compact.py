"""Training of the compact model: data, objective and loop put together from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from vidseg.errors import UsageError, WeightsError
from vidseg.sam.build import build_sam
from vidseg.sam.compact_encoder import CompactEncoder
from vidseg.sam.model import Sam
from vidseg.training.batches import make_batch
from vidseg.training.items import Item, Sample, find_clips, find_pairs, load, load_cutout
from vidseg.training.loop import Draw, Loop, matching, set_trainable
from vidseg.training.objectives import base_loss, hq_loss
from vidseg.training.pretrained import load_imagenet
from vidseg.training.quality import measure, sam_predictor
from vidseg.training.recipe import CompactRecipe, SceneData
from vidseg.training.scenes import SceneMaker
from vidseg.training.splits import dev_clips, held_out, shows_clip

#: Parameters that HQ-SAM adds to the mask decoder, and the only ones that `train hq` changes.
HQ_PARTS = tuple(
    f"mask_decoder.{part}"
    for part in ("hf_token", "hf_mlp", "compress_vit_feat", "embedding_encoder", "embedding_maskfeature")
)


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


def load_scenes(data: SceneData, items: list[Item]) -> tuple[dict[str, list[Sample]], list[tuple[object, object]]]:
    """Decoded samples by source, and the cut-outs."""
    samples: dict[str, list[Sample]] = {}
    for item in items:
        samples.setdefault(item.source, []).append(load(item, data.max_side))
    folder = data.root / "cutouts"
    cutouts = [load_cutout(p, 320) for p in sorted(folder.glob("*.webp"))] if data.cutouts and folder.is_dir() else []
    return samples, cutouts  # type: ignore[return-value]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, float32."""
    try:
        return {k: v.float() for k, v in load_file(path).items()}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot read the weights to start from ({error})") from error


def write_weights(sam: Sam, path: Path) -> None:
    """The network as half precision safetensors, its configuration as JSON in the metadata (key ``config``)."""
    state = {k: v.detach().half().contiguous() for k, v in sam.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file(state, part, metadata={"config": sam.config.to_json(), "format": "vidseg"})
    part.replace(path)


def start(recipe: CompactRecipe) -> Sam:
    """The network at the beginning of the training, with the right parameters left to learn."""
    torch.manual_seed(recipe.loop.seed)
    sam = build_sam(recipe.network)
    if recipe.start is not None:
        lacking, odd = sam.load_state_dict(read_weights(recipe.start), strict=False)
        allowed = HQ_PARTS if recipe.network.hq else ()
        wrong = odd + [k for k in lacking if not k.startswith(allowed or ("-",))]
        if wrong:
            raise WeightsError(f"{recipe.start}: made for another network (first difference: {wrong[0]})")
    elif isinstance(sam.image_encoder, CompactEncoder):
        load_imagenet(sam.image_encoder.trunk)
    if recipe.network.hq:
        set_trainable(sam, matching(HQ_PARTS))
    else:
        frozen = matching(recipe.frozen) if recipe.frozen else lambda _: False
        set_trainable(sam, lambda name: not frozen(name))
    return sam.to(memory_format=torch.channels_last)


def train_compact(recipe: CompactRecipe, folder: Path, resume: bool) -> Path:
    """Run a recipe; returns the safetensors file in ``folder`` with the averaged weights."""
    torch.set_num_threads(recipe.threads)
    if not recipe.shapes or any(side % 32 for shape in recipe.shapes for side in shape):
        raise UsageError(f"shapes {recipe.shapes}: sides must be multiples of 32")
    training, choosing = find_items(recipe.data)
    samples, cutouts = load_scenes(recipe.data, training)
    maker = SceneMaker(samples, recipe.data.weights, cutouts, recipe.scene)  # type: ignore[arg-type]
    sam = start(recipe)
    hq = recipe.network.hq

    def loss(draw: Draw) -> Mapping[str, Tensor]:
        height, width = recipe.shapes[int(draw.rng.integers(len(recipe.shapes)))]
        again = bool(draw.rng.random() < recipe.again)
        batch = make_batch(draw.rng, maker, recipe.images, recipe.prompts, height, width, recipe.mix)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.autocast == "bfloat16"):
            if hq:
                return hq_loss(sam, batch, recipe.points, draw.torch)
            return base_loss(sam, batch, recipe.points, again, draw.torch)

    loop = Loop(sam, loss, recipe.loop, folder, recipe.slow)
    if resume:
        loop.resume()
    result = folder / "weights.safetensors"

    def validate(step: int) -> dict[str, float]:
        write_weights(sam, result)
        scores: dict[str, float] = {}
        for output in ("sam", "hq", "sum") if hq else ("sam",):
            quality = measure(sam_predictor(sam, output), choosing)  # type: ignore[arg-type]
            scores |= {f"{output}_miou": quality.miou, f"{output}_mbiou": quality.mbiou}
        return scores

    loop.run(validate)
    return result


def stored_config(path: Path) -> str:
    """The configuration (JSON) in the metadata of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("config", "")


def with_output(sam: Sam, output: str) -> None:
    """Set what the network hands out by default."""
    sam.config = replace(sam.config, output=output)  # type: ignore[arg-type]
