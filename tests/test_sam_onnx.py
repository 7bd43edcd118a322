"""The exported graphs give what the network gives, for any number of prompts and points."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sam_oracle import MINI_VIT, mini_state, rule_image
from toys import tiny_sam
from vidseg.sam.build import from_state
from vidseg.sam.geometry import frame_geometry, preprocess
from vidseg.sam.model import Sam
from vidseg.sam.onnx_export import export_onnx
from vidseg.sam.prompts import Prompts

onnxruntime = pytest.importorskip("onnxruntime")


def session(path: Path) -> object:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(sam: Sam, folder: Path) -> None:
    encoder, decoder = (session(p) for p in export_onnx(sam, folder))
    size = sam.config.image_size
    image = rule_image(size * 3 // 4, size)
    (features,) = sam.encode([image])
    geometry = frame_geometry(image.shape[:2], sam.config)
    square = torch.zeros(1, 3, size, size)
    pixels = preprocess([image], [geometry], sam.config, torch.device("cpu"))
    square[:, :, : pixels.shape[2]] = pixels
    outputs = encoder.run(None, {"image": square.numpy()})
    if geometry.padded == (size, size):
        assert np.abs(outputs[0][0] - features.embedding.numpy()).max() < 1e-4
    else:  # the graph has a square input: compare with the network on the same input
        with torch.no_grad():
            embedding, early = sam.image_encoder(square)
            fused = sam.mask_decoder.fuse(embedding, early)
        assert np.abs(outputs[0] - embedding.numpy()).max() < 1e-4
        features = type(features)(
            embedding[0], fused[0], sam.prompt_encoder.dense_pe(sam.config.grid, sam.config.grid),
            type(geometry)(geometry.original, geometry.resized, (size, size)),
        )  # fmt: skip

    low = 4 * sam.config.grid
    points = np.array([[[10.0, 20.0], [30.0, 12.0]]] * 3) + np.arange(3)[:, None, None]
    boxes = np.array([[5.0, 6.0, 50.0, 40.0]] * 5) + np.arange(5)[:, None]
    mask = np.full((5, low, low), -4, np.float32)
    mask[:, : low // 2] = 4
    asked = [
        (
            Prompts(points=points, labels=np.array([[1, 0]] * 3)),
            np.concatenate([points, points[:, :1] * 0], 1), [[1, 0, -1]] * 3, None,
        ),
        (Prompts(boxes=boxes), boxes.reshape(5, 2, 2), [[2, 3]] * 5, None),
        (Prompts(boxes=boxes, masks=mask), boxes.reshape(5, 2, 2), [[2, 3]] * 5, mask),
    ]  # fmt: skip
    for prompt, coordinates, labels, masks in asked:
        n = len(prompt)
        values = {
            "embedding": outputs[0],
            "fused": outputs[1],
            "points": coordinates.astype(np.float32),
            "labels": np.array(labels, np.float32),
            "masks": np.zeros((n, 1, low, low), np.float32) if masks is None else masks[:, None],
            "has_mask": np.array([masks is not None], np.float32),
        }
        logits, iou = decoder.run(None, values)
        (single,) = sam.decode([features], [prompt])
        (every,) = sam.decode([features], [prompt], candidates="all")
        assert np.abs(logits[:, :1] - single.logits.numpy()).max() < 1e-4
        assert np.abs(logits[:, 1:] - every.logits.numpy()).max() < 1e-4
        assert np.abs(iou - torch.cat([single.iou, every.iou], 1).numpy()).max() < 1e-4
    assert json.loads((folder / "model.json").read_text())["image_size"] == size


def test_official_architecture(tmp_path: Path) -> None:
    run(from_state(MINI_VIT, mini_state(), "test"), tmp_path)


def test_compact_architecture(tmp_path: Path) -> None:
    run(tiny_sam(), tmp_path)
