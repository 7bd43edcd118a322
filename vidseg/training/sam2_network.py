"""HQ-SAM 2 as training needs it: the HQ parts of a frozen SAM 2, on batches of images with prompts."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg.errors import UsageError
from vidseg.loading import locate_sam
from vidseg.sam2.config import Sam2Config
from vidseg.sam2.decoder import BOX_LABELS, DecoderOutput
from vidseg.sam2.loading import HQ_PARTS, SAM2, names_a_sam2, official_sam2_state, published_config
from vidseg.sam2.model import Sam2
from vidseg.sam2.preprocess import normalised
from vidseg.training.batches import Batch
from vidseg.training.recipe import Recipe
from vidseg.weights.fit import load_finished
from vidseg.weights.read import read_weights

LEARNED = tuple(f"sam_mask_decoder.{part}" for part in HQ_PARTS)
"""Prefixes of the parameters that HQ-SAM 2 adds, the only ones that learn."""

_NOT_FOR_SAM2 = ("whole", "ablate", "learn", "context_tokens", "attend", "pyramid", "lora", "adapters", "frozen")


def sam2_network_of(recipe: Recipe, hq: bool) -> Sam2Config | None:
    """The SAM 2 of a recipe, with its HQ parts; None: it trains a SAM of the first generation.

    Raises:
        UsageError: what a recipe for SAM 2 cannot ask for.
    """
    network = recipe.network
    if isinstance(network, str):
        if not names_a_sam2(network):
            return None
        network = published_config(network)
    if not isinstance(network, Sam2Config):
        return None
    if not hq:
        raise UsageError("recipe: of a SAM 2 only the HQ parts are trained: `vidseg train hq`")
    for name in _NOT_FOR_SAM2:
        default = next(field.default for field in fields(Recipe) if field.name == name)
        if getattr(recipe, name) != default:
            raise UsageError(f"recipe: of a SAM 2 only the HQ parts are trained, as they are: leave out '{name}'")
    side = network.image_size
    if recipe.scenes is not None and recipe.shapes != ((side, side),):
        raise UsageError(
            f"recipe: shapes {recipe.shapes}: this SAM 2 takes squares of {side}: set shapes [[{side}, {side}]]"
        )
    return replace(network, hq=True)


def start_sam2(recipe: Recipe, config: Sam2Config) -> Sam2:
    """The network at the beginning of the training: a finished SAM 2 with fresh HQ parts, which alone learn.

    Raises:
        UsageError: no weights to start from. WeightsError: weights of another network.
    """
    if recipe.start is None:
        raise UsageError("recipe: the HQ parts are trained on a finished SAM 2: name its weights as 'start'")
    torch.manual_seed(recipe.loop.seed)
    net = Sam2(config)
    _, path = locate_sam(recipe.start)
    load_finished(net, official_sam2_state(read_weights(path, SAM2)), str(recipe.start), _learns)
    let_hq_learn(net)
    return net.eval()


def let_hq_learn(net: Sam2) -> None:
    """Let exactly the HQ parts learn."""
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(_learns(name))


def _learns(name: str) -> bool:
    return name.startswith(LEARNED)


def sam2_answers(net: Sam2, batch: Batch) -> DecoderOutput:
    """All masks of every prompt of a batch; gradients reach what was decoded, not the image encoder."""
    with torch.no_grad():
        size = batch.images.shape[-2], batch.images.shape[-1]
        features = net.encode(normalised(batch.images.float() / 255), (int(size[0]), int(size[1])))
    rows = batch.rows
    high_res = features.high_res[0][rows], features.high_res[1][rows]
    points, labels = prompt_points(batch)
    tokens = (
        net.sam_prompt_encoder.points(points, labels)
        if points.shape[1]
        else points.new_zeros(len(rows), 0, net.config.dim)
    )
    empty = net.sam_prompt_encoder.dense(None)
    dense = torch.where(batch.has_mask[:, None, None, None], net.sam_prompt_encoder.dense(batch.logits), empty)
    embedding = features.embedding[rows]
    output: DecoderOutput = net.sam_mask_decoder(embedding, net.dense_pe(), tokens, dense, high_res)
    return output


def prompt_points(batch: Batch) -> tuple[Tensor, Tensor]:
    """Boxes and clicks as points (N, P, 2) with labels (N, P); -1 fills up. P is 0 for masks alone."""
    count = len(batch.rows)
    if batch.layout == "none":
        return batch.points.new_zeros(count, 0, 2), batch.labels.new_zeros(count, 0)
    corners = torch.tensor(BOX_LABELS, device=batch.labels.device).expand(count, 2)
    boxed = torch.cat([batch.boxes.reshape(-1, 2, 2), batch.box_points], 1)
    boxed_labels = torch.cat([corners, batch.box_labels], 1)
    longest = max(boxed.shape[1], batch.points.shape[1])
    boxed, boxed_labels = _filled(boxed, boxed_labels, longest)
    loose, loose_labels = _filled(batch.points, batch.labels, longest)
    is_box = batch.is_box[:, None]
    return torch.where(is_box[..., None], boxed, loose), torch.where(is_box, boxed_labels, loose_labels)


def _filled(points: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    more = count - points.shape[1]
    return F.pad(points, (0, 0, 0, more)), F.pad(labels, (0, more), value=-1)
