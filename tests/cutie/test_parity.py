"""The official numbers of Cutie: keys of the checkpoints, nine videos, and the parts that videos hardly reach."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

import paths
from cutie_rule import rule_cutie
from vidseg.backbones import winograd
from vidseg_trackers.cutie.config import NAMES, CutieConfig
from vidseg_trackers.cutie.inference_core import InferenceCore
from vidseg_trackers.cutie.network import Cutie
from vidseg_trackers.cutie.object_transformer import blocked_pixels
from vidseg_trackers.cutie.options import CutieOptions
from vidseg_trackers.xmem.memory_reading import expand_memory, expand_query, similarity, top_weights, weighted_rows
from xmem_rule import rule_frames

FIXTURES = paths.FIXTURES / "cutie"
VIDEOS = [
    ("base_fifo", "official"),
    ("base_fifo", "correct"),
    ("base_default", "official"),
    ("base_longterm_late_delete", "official"),
    ("base_longterm_late_delete_reindexed", "correct"),
    ("base_delete_readd", "official"),
    ("base_permanent", "official"),
    ("base_mixed_mask", "official"),
    ("small_chunk", "correct"),
    ("small_flip_resize", "correct"),
]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_have_the_official_names_shapes_and_types(name: str) -> None:
    with torch.device("meta"):
        state = Cutie(CutieConfig.official(name)).state_dict()
    ours = sorted(f"{key} {tuple(v.shape)} {str(v.dtype).removeprefix('torch.')}" for key, v in state.items())
    assert ours == (FIXTURES / f"keys_{name}.txt").read_text().splitlines()


@pytest.mark.parametrize(("name", "memory"), VIDEOS)
def test_videos_give_the_official_probabilities(name: str, memory: str) -> None:
    expected = np.load(FIXTURES / f"{name}.npz")
    meta = json.loads(str(expected["meta"]))
    config = {key: value for key, value in meta["cfg"].items() if key != "save_aux"}
    options = CutieOptions.from_mapping({**config, "memory": memory})
    core = InferenceCore(rule_cutie(CutieConfig.official(meta["model"]), meta["gains"]), options)
    frames = rule_frames(meta["T"], meta["h"], meta["w"], meta["seed"])
    errors, differ = [], []
    for t, step in enumerate(meta["steps"]):
        core.remove(step.get("delete", []))
        if "clear" in step:
            core.clear(step["clear"])
        masks = given_masks(step, meta["h"], meta["w"])
        image = torch.from_numpy(frames[step["frame"]])
        out = core.step(image, masks, end=step.get("end", False), permanent=step.get("force_permanent", False)).numpy()
        check_sizes(core, out, meta["after_each_step"][t])
        if f"prob_{t}" in expected:
            ours = out if t in meta["keep_full"] else out.ravel()[:: meta["prob_stride"]]
            errors.append(np.abs(ours - expected[f"prob_{t}"]).max())
        if out.shape[1:] == (meta["h"], meta["w"]):
            labels = np.array([0, *core.ids])[out.argmax(0)] if core.ids else np.zeros_like(expected["labels"][t])
            differ.append((labels != expected["labels"][t]).mean())
    assert max(errors) < 1e-4  # seen: 1.2e-5
    assert np.mean(differ) < 1e-4
    memory_of = torch.stack([core.memory.object_memory[i] for i in core.ids], 1).numpy()
    np.testing.assert_allclose(memory_of, expected["final_object_memory"], rtol=1e-4, atol=1e-4)
    sensory = torch.stack([core.sensory[i] for i in core.ids], 1).numpy().ravel()[:: meta["sensory_stride"]]
    np.testing.assert_allclose(sensory, expected["final_sensory"], atol=1e-4)


def test_videos_give_the_official_probabilities_computed_by_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the 3x3 convolutions of larger videos are."""
    monkeypatch.setattr(winograd, "_LEAST_TILES", 1)
    monkeypatch.setattr(winograd, "_LEAST_CHANNELS", 1)
    test_videos_give_the_official_probabilities("small_chunk", "correct")


def check_sizes(core: InferenceCore, out: np.ndarray, after: Mapping[str, Any]) -> None:
    buckets = core.memory.buckets
    assert list(out.shape) == after["prob_shape"]
    assert core.ids == after["tmp_to_id"]
    assert {str(n): bucket.ids for n, bucket in buckets.items()} == after["buckets"]
    assert {str(n): list(b.sizes[:2]) for n, b in buckets.items()} == after["work_total_and_permanent"]
    assert {str(n): b.sizes[2] for n, b in buckets.items() if b.sizes[2]} == {
        n: size for n, size in after["long"].items() if size
    }


def given_masks(step: Mapping[str, Any], height: int, width: int) -> dict[int, torch.Tensor] | None:
    """The masks of a step: painted rectangles (hard) or discs with soft edges."""
    if "rects" in step:
        labels = np.zeros((height, width), np.int64)
        for label, (y0, y1, x0, x1) in step["rects"]:
            labels[y0:y1, x0:x1] = label
        return {i: torch.from_numpy(labels == i) for i in step["objects"]}
    if "discs" in step:
        return dict(enumerate((disc(d, height, width) for d in step["discs"]), 1))
    return None


def disc(circle: Sequence[float], height: int, width: int) -> torch.Tensor:
    y, x = np.mgrid[:height, :width]
    cy, cx, radius = circle
    return torch.from_numpy(np.clip(0.5 + (radius - np.hypot(y - cy, x - cx)) / 4, 0, 1).astype(np.float32))


def test_the_object_transformer_gives_the_official_numbers() -> None:
    expected = np.load(FIXTURES / "object_unit.npz")
    meta = json.loads(str(expected["meta"]))
    network = rule_cutie(CutieConfig.official("base"))
    rng = np.random.RandomState(meta["seed"])
    n, h, w = meta["objects"], meta["h16"], meta["w16"]

    def draw(shape: tuple[int, ...], kind: str) -> torch.Tensor:
        values = rng.uniform(size=shape) if kind == "uniform" else rng.standard_normal(shape)
        return torch.from_numpy(np.asarray(values, np.float32))

    masks = [torch.from_numpy(np.asarray(rng.uniform(size=(1, n, 16 * h, 16 * w)) ** 3, np.float32)) for _ in "ab"]
    values = [draw((1, n, 256, h, w), "normal") for _ in "ab"]
    summaries = [network.object_summarizer(v, m) for v, m in zip(values, masks, strict=True)]
    for i, summary in enumerate(summaries):
        np.testing.assert_allclose(summary.numpy(), expected[f"summaries_{i}"], rtol=1e-4, atol=1e-4)
    pixel = draw((1, n, 256, h, w), "normal")
    read = network.read_objects(pixel, summaries[0] + summaries[1]).numpy().ravel()[:: meta["stride"]]
    np.testing.assert_allclose(read, expected["transformer_out"], atol=1e-4 * np.abs(read).max())
    feature, sensory = draw((1, 256, h, w), "normal"), draw((1, n, 256, h, w), "normal")
    last = draw((1, n, 16 * h, 16 * w), "uniform")
    features = network.encode_image(torch.zeros(1, 3, 16 * h, 16 * w))._replace(pixel=feature)
    fused = network.fuse(features, pixel, sensory, last).numpy().ravel()[:: meta["stride"]]
    np.testing.assert_allclose(fused, expected["fused"], atol=1e-4)


def test_queries_attend_to_their_own_pixels_and_ties_belong_to_all() -> None:
    expected = np.load(FIXTURES / "object_unit.npz")
    blocked = blocked_pixels(torch.from_numpy(expected["edge_logits"]), 16).numpy()
    np.testing.assert_array_equal(blocked, expected["edge_blocked"])


def test_reading_gives_the_official_numbers() -> None:
    expected = np.load(FIXTURES / "read_unit.npz")
    k = json.loads(str(expected["meta"]))["top_k"]
    tensors = {name: torch.from_numpy(expected[name][0]) for name in expected.files if expected[name].ndim > 1}
    rows = {name: tensor.transpose(-1, -2).contiguous() for name, tensor in tensors.items() if tensor.ndim > 1}
    scores = similarity(
        expand_query(rows["query_key"], rows["query_selection"]),
        expand_memory(rows["mem_key"], rows["mem_shrinkage"]),
    )
    np.testing.assert_allclose(scores.T.numpy(), tensors["similarity"].numpy(), rtol=1e-4, atol=1e-4)
    weights, index = top_weights(scores, k)
    for value, official in zip(rows["mem_value"], tensors["readout"], strict=True):
        np.testing.assert_allclose(weighted_rows(value, weights, index).T.numpy(), official.numpy(), atol=1e-4)
