"""The network against numbers of the official code (see mask2former_oracle.py)."""

from __future__ import annotations

import ast
import gzip

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mask2former_oracle import FIXTURES, TOY, TOY_SWIN, moving_waves, oracle_network, toy_network, vectors
from vidseg_trackers.mask2former.clip import best_objects, query_masks, run_clip
from vidseg_trackers.mask2former.config import ARCHITECTURES, config_from_state_dict
from vidseg_trackers.mask2former.deformable import sample_levels
from vidseg_trackers.mask2former.frames import FrameSizes, fit_frame, full_logits, shrink, to_input, without_padding
from vidseg_trackers.mask2former.network import Mask2Former
from vidseg_trackers.mask2former.weights import official_names

ORACLES = [("m2f_vis_r50", "r50"), ("m2f_vis_swint", "swin-t")]


def difference(got: torch.Tensor, want: np.ndarray) -> float:
    """Relative to the largest wanted value where that is over 1."""
    assert got.shape == want.shape
    return float(np.abs(got.numpy() - want).max() / max(1.0, np.abs(want).max()))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "architecture"), ORACLES)
def test_official_numbers(name: str, architecture: str) -> None:
    want, meta = vectors(name)
    network = oracle_network(name, architecture)
    frames = moving_waves(meta["T"], meta["h"], meta["w"], meta["seed"])
    sizes = FrameSizes((meta["out_h"], meta["out_w"]), (meta["h"], meta["w"]), (64, 96))

    seen: list[torch.Tensor] = []
    predictor = network.sem_seg_head.predictor
    hook = predictor.decoder_norm.register_forward_hook(lambda module, inputs, out: seen.append(out))
    queries, mask_features = run_clip(network, frames, sizes)
    hook.remove()

    # Tolerances: float32 on another CPU; a mask logit is a sum of 256 products of numbers around 1.
    images = to_input(frames, sizes, torch.device("cpu"))
    with torch.inference_mode():
        backbone = network.backbone(images)
        maps = network.encode(images).maps
        layers = torch.stack([predictor.class_embed(x) for x in seen[:-1]])
    assert difference(backbone[0].mean(1), want["res2_mean"]) < 1e-5
    assert difference(backbone[3], want["res5"]) < 1e-5
    assert difference(mask_features.mean(1), want["mask_features_mean"]) < 1e-5
    assert difference(maps[0], want["ms0"]) < 1e-5
    assert difference(maps[1].mean(1), want["ms1_mean"]) < 1e-5
    assert difference(maps[2].mean(1), want["ms2_mean"]) < 1e-5
    assert np.abs(layers.numpy() - want["aux_logits"]).max() < 1e-4
    assert np.abs(queries.class_logits.numpy() - want["pred_logits"]).max() < 1e-4
    everything = query_masks(queries, torch.arange(meta["queries"]), mask_features)
    assert np.abs(everything.numpy() - want["pred_masks"]).max() < 2e-3

    best = best_objects(queries)
    order = np.argsort(-want["scores"])  # the official ten are in no particular order
    np.testing.assert_allclose(best.scores.numpy(), want["scores"][order], atol=1e-5)
    np.testing.assert_array_equal(best.labels.numpy(), want["labels"][order])
    logits = query_masks(queries, best.queries, mask_features)
    masks = torch.stack([full_logits(x, sizes) > 0 for x in logits.unbind(1)], 1).numpy()
    shape = tuple(want["masks_shape"])
    official = np.unpackbits(want["masks"])[: np.prod(shape)].reshape(shape).astype(bool)[order]
    assert (masks != official).sum() <= 3
    assert official.sum() > 5000  # the masks are not all empty


@pytest.mark.parametrize(("file", "architecture"), [("keys_r50", "r50"), ("keys_swinl", "swin-l")])
def test_names_and_shapes_are_the_official_ones(file: str, architecture: str) -> None:
    lines = gzip.decompress((FIXTURES / f"{file}.txt.gz").read_bytes()).decode().splitlines()
    official = {
        key: torch.empty(ast.literal_eval(shape), device="meta") for key, shape in (x.split("\t") for x in lines)
    }
    with torch.device("meta"):
        ours = Mask2Former(ARCHITECTURES[architecture]).state_dict()
    wanted = official_names(official, where=file)
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in wanted.items()}
    left_out = {key.rpartition(".")[2] for key in official.keys() - wanted.keys()}
    assert left_out <= {"empty_weight", "relative_position_index"}


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_dimensions_follow_from_the_tensors(architecture: str) -> None:
    with torch.device("meta"):
        state = Mask2Former(ARCHITECTURES[architecture]).state_dict()
    assert config_from_state_dict(state) == ARCHITECTURES[architecture]


def test_deformable_sampling_is_grid_sampling() -> None:
    """Against torch's own bilinear sampling with zeros outside, also far outside and at the borders."""
    torch.manual_seed(0)
    sizes = [(3, 5), (6, 4)]
    batch, heads, dim, points, count = 2, 2, 4, 3, 50
    table = torch.randn(batch, sum(h * w for h, w in sizes), heads, dim)
    wh = torch.tensor([(w, h) for h, w in sizes])
    places = (torch.rand(batch, count, heads, 2, points, 2) * 2 - 0.5) * wh[:, None]
    places[0, :6] = places[0, :6].round()
    weights = torch.rand(batch, count, heads, 2, points)
    want = torch.zeros(batch, count, heads, dim)
    start = 0
    for level, (h, w) in enumerate(sizes):
        values = table[:, start : start + h * w].permute(0, 2, 3, 1).reshape(batch * heads, dim, h, w)
        start += h * w
        grid = (places[:, :, :, level] + 0.5) / wh[level] * 2 - 1
        got = F.grid_sample(values, grid.transpose(1, 2).flatten(0, 1), align_corners=False)
        got = got.unflatten(0, (batch, heads)) * weights[:, :, :, level].transpose(1, 2)[:, :, None]
        want += got.sum(-1).permute(0, 3, 1, 2)
    torch.testing.assert_close(sample_levels(table, places, weights, sizes), want.flatten(2))


@pytest.mark.parametrize("config", [TOY, TOY_SWIN])
def test_frames_in_chunks_give_the_same(config: object) -> None:
    network = toy_network(config)  # type: ignore[arg-type]
    frames = moving_waves(5, 50, 70, 3)
    sizes = fit_frame((50, 70), 50, 1000)
    queries, features = run_clip(network, frames, sizes)
    with torch.inference_mode():
        at_once = network.encode(to_input(frames, sizes, torch.device("cpu")))
        again = network.decode(at_once)
    torch.testing.assert_close(features, at_once.mask_features, atol=1e-4, rtol=0)
    torch.testing.assert_close(queries.class_logits, again.class_logits, atol=1e-3, rtol=0)


def test_time_counts_only_between_frames() -> None:
    """In a single frame the code of time is the same for all keys, and a softmax does not see it."""
    frames = moving_waves(3, 64, 64, 5)
    sizes = fit_frame((64, 64), 64, 1000)
    changes = []
    for clip in (frames[:1], frames):
        logits = []
        for video in (True, False):
            network = toy_network()
            network.sem_seg_head.predictor.video = video
            logits.append(run_clip(network, clip, sizes)[0].class_logits)
        changes.append(float((logits[0] - logits[1]).abs().max()))
    assert changes[0] < 1e-3 < 1e-2 < changes[1]


@pytest.mark.parametrize(
    ("original", "short", "longest", "resized", "padded"),
    [
        ((720, 1280), 360, 1333, (360, 640), (384, 640)),
        ((480, 853), 360, 1333, (360, 640), (384, 640)),
        ((1280, 720), 480, 1333, (853, 480), (864, 480)),
        ((200, 1600), 480, 1333, (167, 1333), (192, 1344)),
        ((1, 100_000), 480, 1333, (1, 1333), (32, 1344)),
        ((3, 5), 480, 1333, (480, 800), (480, 800)),
    ],
)
def test_sizes(original, short, longest, resized, padded) -> None:
    assert fit_frame(original, short, longest) == FrameSizes(original, resized, padded)


def test_masks_without_padding_cover_the_frame() -> None:
    sizes = fit_frame((72, 100), 72, 1000)
    logits = torch.randn(2, sizes.padded[0] // 4, sizes.padded[1] // 4)
    torch.testing.assert_close(without_padding(logits, sizes), logits[:, :18, :25], atol=1e-5, rtol=0)
    odd = fit_frame((73, 101), 73, 1000)
    column = torch.arange(odd.padded[1] // 4).float().expand(1, odd.padded[0] // 4, -1)
    got = without_padding(column, odd)
    assert got.shape == (1, 19, 26)
    # cell k of 26 is centred at (k + 0.5) * 101 / 26 pixels of the input
    want = (torch.arange(26) + 0.5) * 101 / 26 / 4 - 0.5
    torch.testing.assert_close(got[0, 4], want.clamp(min=0), atol=1e-4, rtol=0)


def test_resizing_is_pillows() -> None:
    rgb = moving_waves(1, 90, 160, 1)[0]
    small = shrink(rgb, fit_frame((90, 160), 45, 1000))
    assert small.shape == (45, 80, 3) and small.dtype == np.uint8
    means = rgb.reshape(45, 2, 80, 2, 3).mean((1, 3))
    assert np.abs(small.astype(float) - means).mean() < 2
