"""The exported graphs give what the network gives, for any number of prompts and points."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sam_oracle import MINI_VIT, mini_state, rule_image
from toys import TINY, tiny_sam
from vidseg.loading import load_sam
from vidseg.sam.build import build_sam, from_state
from vidseg.sam.geometry import Geometry, frame_geometry, preprocess
from vidseg.sam.model import Sam
from vidseg.sam.onnx_export import export_onnx
from vidseg.sam.prompt_batch import PromptBatch

onnxruntime = pytest.importorskip("onnxruntime")


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def pad_point(array: np.ndarray, value: float) -> np.ndarray:
    """One "no point" more per prompt, as a prompt without a box needs it."""
    return np.concatenate([array, np.full_like(array[:, :1], value)], 1)


class Graphs:
    """Both exported graphs, asked as a program without vidseg would ask them."""

    def __init__(self, sam: Sam, folder: Path) -> None:
        self.encoder, self.decoder = (session(path) for path in export_onnx(sam, folder))
        self.about = json.loads((folder / "model.json").read_text())
        self.sam = sam

    def compare(self, image: np.ndarray, *, exact: float = 1e-4) -> None:
        sam = self.sam
        (features,) = sam.encode([image])
        geometry = frame_geometry(image.shape[:2], sam.config)
        pixels = preprocess([image], [geometry], sam.config, torch.device("cpu"))
        outputs = self.encoder.run(None, {"image": pixels.numpy()})
        assert np.abs(outputs[0][0] - features.embedding.numpy()).max() < exact
        for prompt in prompts(image.shape[:2], geometry.low_res):
            logits, iou = self.decoder.run(None, self.inputs(prompt, outputs, geometry))
            (single,) = sam.decode([features], [prompt])
            (every,) = sam.decode([features], [prompt], candidates="all")
            assert np.abs(logits[:, :1] - single.logits.numpy()).max() < exact
            assert np.abs(logits[:, 1:] - every.logits.numpy()).max() < exact
            assert np.abs(iou - torch.cat([single.iou, every.iou], 1).numpy()).max() < exact

    def inputs(self, prompt: PromptBatch, outputs: list[np.ndarray], geometry: Geometry) -> dict[str, np.ndarray]:
        scale, n = np.array(geometry.scale), len(prompt)
        points, labels = np.zeros((n, 0, 2)), np.zeros((n, 0))
        if prompt.points is not None and prompt.labels is not None:
            points, labels = prompt.points.numpy() * scale, prompt.labels.numpy()
        if prompt.boxes is None:
            points, labels = pad_point(points, 0), pad_point(labels, -1)
        else:
            points = np.concatenate([points, prompt.boxes.numpy().reshape(n, 2, 2) * scale], 1)
            labels = np.concatenate([labels, [[2, 3]] * n], 1)
        masks = prompt.masks.numpy() if prompt.masks is not None else np.zeros((n, *geometry.low_res))
        names = [output.name for output in self.encoder.get_outputs()]
        return dict(zip(names, outputs, strict=True)) | {
            "points": points.astype(np.float32),
            "labels": labels.astype(np.float32),
            "masks": masks[:, None].astype(np.float32),
            "has_mask": np.array([prompt.masks is not None], np.float32),
        }


def prompts(size: tuple[int, int], low: tuple[int, int]) -> list[PromptBatch]:
    """One and several points, boxes, both, with a mask; points near each other and outside, padded rows."""
    height, width = size
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.1, 1.1, (3, 4, 2)) * (width, height)
    points[:, 1] = points[:, 0] + 3
    labels = np.array([[1, 0, 1, 1], [0, 1, 1, -1], [1, 1, -1, -1]])
    boxes = np.sort(rng.uniform(0, 1, (3, 2, 2)), axis=1).reshape(3, 4) * (width, height, width, height)
    return [
        PromptBatch(points=points[:, :1], labels=labels[:, :1]),
        PromptBatch(points=points, labels=labels),
        PromptBatch(boxes=boxes[:1]),
        PromptBatch(boxes=boxes, points=points, labels=labels),
        PromptBatch(boxes=boxes, points=points, labels=labels, masks=rng.normal(0, 5, (3, *low)).astype(np.float32)),
    ]


def test_official_architecture(tmp_path: Path) -> None:
    sam = from_state(MINI_VIT, mini_state(), "test")
    graphs = Graphs(sam, tmp_path)
    graphs.compare(rule_image(sam.config.image_size * 3 // 4, sam.config.image_size))
    assert graphs.about["image_size"] == sam.config.image_size and graphs.about["pad"] == "square"


def test_shipped_architecture_with_images_of_any_size(tmp_path: Path) -> None:
    graphs = Graphs(tiny_sam(), tmp_path)
    assert graphs.sam.config.prompt_map and graphs.about["pad"] == "stride"
    for size in ((96, 128), (128, 128), (20, 300), (300, 150)):
        graphs.compare(rule_image(*size))


def test_without_the_hq_mask_nothing_of_it_is_asked_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sam = build_sam(replace(TINY, output="sam")).eval()
    Graphs(sam, tmp_path).compare(rule_image(96, 128))


def test_the_embedded_model_gives_its_masks(tmp_path: Path) -> None:
    sam = load_sam("compact")
    graphs = Graphs(sam, tmp_path)
    y, x = np.mgrid[:270, :480]
    image = np.stack([90 + x // 6, 120 - y // 5, 60 + (x + y) % 23], axis=2).astype(np.uint8)
    image[(x - 200) ** 2 + 2 * (y - 130) ** 2 < 80**2] = (200, 60, 40)
    geometry = frame_geometry((270, 480), sam.config)
    (features,) = sam.encode([image])
    pixels = preprocess([image], [geometry], sam.config, torch.device("cpu"))
    outputs = graphs.encoder.run(None, {"image": pixels.numpy()})
    centre, corner = [200.0, 130.0], [20.0, 20.0]
    for prompt in (
        PromptBatch(boxes=np.array([[118.0, 70, 282, 190]])),
        PromptBatch(points=np.array([[centre]]), labels=np.array([[1]])),
        PromptBatch(points=np.array([[centre, corner]]), labels=np.array([[1, 0]])),
    ):
        logits, _ = graphs.decoder.run(None, graphs.inputs(prompt, outputs, geometry))
        found, expected = logits[0, 0] > 0, sam.decode([features], [prompt])[0].logits[0, 0].numpy() > 0
        assert expected.sum() > 500
        assert (found & expected).sum() / (found | expected).sum() > 0.999
