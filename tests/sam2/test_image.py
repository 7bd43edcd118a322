"""SAM 2 in place of a SAM: official masks through the common interface, automatic masks, crops, `vidseg image`."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sam2_rule import Case, frame
from toys import tiny_sam
from vidseg.errors import InputError, UsageError
from vidseg.masks.rle import area
from vidseg.sam.automatic import AutomaticOptions, automatic_masks
from vidseg.sam.config import Output
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam.zoom import draw_closely
from vidseg.sam2.adapter import Sam2AsSam
from vidseg.sam2.loading import place_sam2, save_sam2
from vidseg.types import Frame, Tracks
from vidseg_pipelines.cli import main
from vidseg_pipelines.discovery import discover_objects
from vidseg_pipelines.refiner import RefineOptions, Refiner


@cache
def sam(name: str = "image_mini") -> Sam2AsSam:
    return Sam2AsSam(Case(name).network())


@cache
def picture(name: str = "image_mini") -> np.ndarray:
    image = Case(name).meta["image"]
    return frame(image["seed"], 0, image["h"], image["w"])


def prompts_of(prompt: dict, side: int) -> PromptBatch:
    def array(key: str, shape: tuple[int, ...], kind: type) -> np.ndarray | None:
        return np.array(prompt[key], kind).reshape(shape) if prompt.get(key) is not None else None

    masks = None
    if "mask_seed" in prompt:
        masks = np.random.RandomState(prompt["mask_seed"]).randint(-40, 41, (1, side, side)) / 4
    points, labels = array("points", (1, -1, 2), float), array("labels", (1, -1), int)
    return PromptBatch(array("box", (-1, 4), float), points, labels, masks)


@pytest.mark.parametrize("name", ["image_mini", "image_mini_hq"])
def test_the_common_interface_gives_the_official_masks(name: str) -> None:
    case, network = Case(name), sam(name)
    (features,) = network.encode([picture(name)])
    side = network.config.image_size // 4
    compared = 0
    for prompt in case.meta["prompts"]:
        if not any(prompt.get(key) is not None for key in ("points", "box", "mask_seed")):
            continue  # to ask for nothing is not possible here
        for mode in prompt["modes"]:
            if mode.get("dynamic") is False:
                continue
            output: Output | None = "hq" if mode.get("hq_only") else None
            if output == "hq" and mode["multi"]:
                continue  # one mask for three qualities
            candidates = "all" if mode["multi"] else "single"
            (answer,) = network.decode([features], [prompts_of(prompt, side)], output, candidates)
            key = prompt["name"] + ("_multi" if mode["multi"] else "_single") + ("_hqonly" if output else "")
            key += "_dyn" if mode.get("dynamic") else ""
            if f"{key}__full" not in case:
                continue
            assert case.difference(f"{key}__full", answer.upsampled()) < 5e-4, key
            assert case.difference(f"{key}__iou", answer.iou) < 1e-5, key
            compared += 1
    assert compared >= 10


def test_the_best_candidate_is_that_of_the_highest_quality_and_outputs_add_up() -> None:
    network = sam("image_mini_hq")
    features = network.encode([picture("image_mini_hq")])
    asked = [PromptBatch(points=np.array([[[60.0, 50.0]]]), labels=np.array([[1]]))]
    (every,), (best,) = (network.decode(features, asked, None, c) for c in ("all", "best"))
    row = int(every.iou[0].argmax())
    assert torch.equal(best.logits[0, 0], every.logits[0, row]) and best.iou[0, 0] == every.iou[0].max()
    (total,), (plain,), (hq,) = (network.decode(features, asked, o) for o in ("sum", "sam", "hq"))
    torch.testing.assert_close(total.logits, plain.logits + hq.logits)
    assert network.with_output("hq").decode(features, asked)[0].logits.equal(hq.logits)
    assert network.config.output == "sum"


def test_many_prompts_in_any_chunks_and_none_at_all() -> None:
    network = sam()
    features = network.encode([picture()])
    boxes = np.array([[5, 5, 40 + i, 50] for i in range(5)], np.float32)
    (whole,), (parts,) = (network.decode(features, [PromptBatch(boxes=boxes)], max_batch=n) for n in (None, 2))
    torch.testing.assert_close(whole.logits, parts.logits, atol=1e-4, rtol=0)
    (none,) = network.decode(features, [PromptBatch(boxes=boxes[:0])])
    assert none.logits.shape == (0, 1, *features[0].geometry.low_res)


def test_wrong_calls() -> None:
    network, box = sam(), PromptBatch(boxes=np.array([[1, 1, 9, 9]]))
    features = network.encode([picture()])
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: network.decode(features, []), "1 frames but 0"),
        (lambda: network.decode(features, [box], "hq"), "plain SAM 2"),
        (lambda: network.decode(features, [box], max_batch=-1), "at least 1"),
        (lambda: network.encode([picture()], 96), "squares of 256"),
        (lambda: network.decode(tiny_sam().encode([picture()]), [box]), "not those of a SAM 2"),
    ]
    for call, words in calls:
        with pytest.raises(UsageError, match=words):
            call()
    with pytest.raises(InputError, match="uint8 RGB"):
        network.encode([np.zeros((4, 4), np.uint8)])


def test_it_refines_a_tracker_and_draws_on_crops() -> None:
    network, rgb = sam(), picture()
    height, width = rgb.shape[:2]
    view = Frame(0, 0, 0.0, rgb)
    box = np.array([[width * 0.2, height * 0.2, width * 0.6, height * 0.7]], np.float32)
    tracks = Tracks(0, np.array([4]), box, np.ones(1, np.float32))
    (whole,) = Refiner(network, RefineOptions("box")).refine([view], network.encode([rgb]), [tracks])
    (answer,) = network.decode(network.encode([rgb]), [PromptBatch(boxes=box)])
    assert whole.ids == (4,)
    assert area(whole.rles[0]) == int((answer.upsampled() > 0).sum())  # in one step, as officially
    (crop,) = Refiner(network, RefineOptions("auto", zoom="always")).refine([view], [None], [tracks])
    assert crop.rles[0] != whole.rles[0]
    logits, _ = draw_closely(network, rgb, network.encode([rgb])[0], PromptBatch(boxes=box), "always")
    assert logits.shape == (1, 1, height, width) and not torch.equal(logits, answer.upsampled())


def test_automatic_masks_and_discovery_keep_the_threshold_of_sam_2() -> None:
    network = sam()
    few = AutomaticOptions(points_per_side=3, stability_score_thresh=0.0)
    quality = network.config.quality
    found = automatic_masks(network, picture(), few)
    assert quality == 0.8 and all(mask.predicted_iou > quality for mask in found)
    every = automatic_masks(network, picture(), AutomaticOptions(points_per_side=3, pred_iou_thresh=0.0))
    assert len(every) >= len(found)
    discover_objects(network, network.encode([picture()])[0], max_objects=2)


def test_half_precision_gives_nearly_the_same_mask() -> None:
    asked = [PromptBatch(boxes=np.array([[20, 10, 90, 80]], np.float32))]
    half = Sam2AsSam(place_sam2(Case("image_mini").network(), torch.device("cpu"), torch.bfloat16))
    (exact,), (close,) = (one.decode(one.encode([picture()]), asked) for one in (sam(), half))
    assert close.logits.dtype == torch.float32
    differs = (exact.logits > 0) != (close.logits > 0)
    assert float(differs.float().mean()) < 0.05


@pytest.mark.parametrize("prompt", [["--box", "20,10,90,80"], ["--point", "50,40"], ["--auto", "--min-iou", "0"]])
def test_image_command(tmp_path: Path, prompt: list[str]) -> None:
    save_sam2(sam().net, tmp_path / "mini.safetensors")
    Image.fromarray(picture()).save(tmp_path / "a.png")
    options = ["--points-per-side", "2", "--min-stability", "0"] if prompt[0] == "--auto" else []
    command = ["image", str(tmp_path / "a.png"), "--output", str(tmp_path / "out"), *prompt, *options]
    assert main([*command, "--model", str(tmp_path / "mini.safetensors")]) == 0
    (report,) = (tmp_path / "out").glob("*.json")
    assert json.loads(report.read_text())["masks"]


def test_a_sam_2_is_not_exported_to_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_sam2(sam().net, tmp_path / "mini.safetensors")
    command = ["export-onnx", "--model", str(tmp_path / "mini.safetensors"), "--output", str(tmp_path / "onnx")]
    assert main(command) == 2
    assert "a SAM 2 cannot be exported" in capsys.readouterr().err
