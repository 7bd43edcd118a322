"""HQ parts trained on a SAM 2: what learns, what is written, what the written file is, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training_toys import CPU, hq_recipe, write_folder
from vidseg.backbones.hiera import HieraConfig
from vidseg.errors import UsageError, WeightsError
from vidseg.loading import load_sam
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam2.config import Sam2Config
from vidseg.sam2.loading import save_sam2
from vidseg.sam2.model import Sam2
from vidseg.training.batches import Batch, PromptMix, prompt_batch
from vidseg.training.recipe import Recipe, SceneData
from vidseg.training.sam2_network import LEARNED, prompt_points, sam2_answers, start_sam2
from vidseg.training.scenes import Scene
from vidseg.training.trainer import network_of, train
from vidseg.weights.read import read_weights
from vidseg_pipelines.cli import main

TOY = Sam2Config(
    trunk=HieraConfig(16, 1, (1, 1, 2, 1), (2,), background=(4, 4)),
    dim=32,
    memory_dim=8,
    image_size=64,
    attention_layers=1,
    attention_ff=32,
)


def recipe_of(tmp_path: Path, **changes: object) -> Recipe:
    if not (tmp_path / "data").exists():
        write_folder(tmp_path / "data")
    torch.manual_seed(1)
    start = tmp_path / "sam2.safetensors"
    if not start.exists():
        save_sam2(Sam2(TOY), start)
    (tmp_path / "sam1").mkdir(exist_ok=True)
    recipe = hq_recipe(tmp_path / "sam1")
    return replace(recipe, network=TOY, folders=replace(recipe.folders, root=tmp_path / "data"), start=start, **changes)


def test_only_the_hq_parts_learn_and_the_file_is_an_hq_sam_2(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    path = train(recipe, tmp_path / "run", True, False, CPU)
    result, before = read_weights(path).tensors, read_weights(tmp_path / "sam2.safetensors").tensors
    assert set(result) == set(Sam2(replace(TOY, hq=True)).state_dict())
    assert all(torch.equal(result[name], value) for name, value in before.items())
    fresh = start_sam2(recipe, replace(TOY, hq=True)).state_dict()
    assert all(not torch.equal(result[name], fresh[name]) for name in result if name.startswith(LEARNED))
    sam = load_sam(str(path))
    assert sam.config.hq and sam.config.output == "sum"
    (features,) = sam.encode([np.zeros((40, 60, 3), np.uint8)])
    masks = {
        o: sam.decode([features], [PromptBatch(boxes=np.array([[5, 5, 30, 30]], np.float32))], output=o)[0].logits
        for o in ("sam", "hq", "sum")
    }
    torch.testing.assert_close(masks["sum"], masks["sam"] + masks["hq"])
    scores = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert 0 <= [row for row in scores if "hq_miou" in row][-1]["sum_mbiou"] <= 1


def test_a_resumed_training_is_identical(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    whole = read_weights(train(recipe, tmp_path / "whole", True, False, CPU)).tensors
    train(replace(recipe, loop=replace(recipe.loop, stop=1)), tmp_path / "parts", True, False, CPU)
    parts = read_weights(train(recipe, tmp_path / "parts", True, True, CPU)).tensors
    assert all(torch.equal(parts[name], value) for name, value in whole.items())


def _batch(layout: str) -> Batch:
    image, mask = np.full((64, 64, 3), 40, np.uint8), np.zeros((64, 64), np.uint8)
    image[10:40, 12:50], mask[10:40, 12:50] = 200, 255
    scene = Scene(image, np.stack([mask, np.roll(mask, 8, axis=1)]))
    mix = PromptMix(click=0.5, mask=0.5)
    return prompt_batch(np.random.default_rng(3), [scene, scene], 4, layout, mix)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["two", "four", "none"])
def test_boxes_clicks_and_masks_go_in_as_the_predictor_gives_them(layout: str) -> None:
    torch.manual_seed(0)
    net, batch = Sam2(replace(TOY, hq=True)).eval(), _batch(layout)
    answers = sam2_answers(net, batch)
    points, labels = prompt_points(batch)
    for i, row in enumerate(batch.rows.tolist()):
        if layout != "none":
            box = bool(batch.is_box[i])
            expected = [*batch.boxes[i].reshape(2, 2), *batch.box_points[i]] if box else list(batch.points[i])
            kinds = [2, 3, *batch.box_labels[i].tolist()] if box else batch.labels[i].tolist()
            torch.testing.assert_close(points[i, : len(kinds)], torch.stack(expected))
            assert labels[i].tolist() == kinds + [-1] * (labels.shape[1] - len(kinds))
        features = net.encode_image(batch.images[row].permute(1, 2, 0).numpy())
        clicks = (points[i : i + 1], labels[i : i + 1]) if points.shape[1] else None
        with torch.inference_mode():
            alone = net.decode(
                features.embedding, features.high_res, clicks, batch.logits[i : i + 1] if batch.has_mask[i] else None
            )
        torch.testing.assert_close(answers.masks[i].detach(), alone.masks[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(answers.hq[i].detach(), alone.hq[0], atol=1e-4, rtol=1e-4)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    with pytest.raises(UsageError, match="only the HQ parts are trained"):
        network_of(recipe, hq=False)
    for name, value in (("whole", True), ("ablate", ("early",)), ("learn", ("sam",)), ("pyramid", True)):
        with pytest.raises(UsageError, match=f"as they are: leave out '{name}'"):
            network_of(replace(recipe, **{name: value}), hq=True)
    scenes = SceneData(root=tmp_path, weights={"toy": 1.0})
    with pytest.raises(UsageError, match=r"takes squares of 64: set shapes \[\[64, 64\]\]"):
        network_of(replace(recipe, folders=None, scenes=scenes, unit="step"), hq=True)
    with pytest.raises(UsageError, match="name its weights as 'start'"):
        start_sam2(replace(recipe, start=None), replace(TOY, hq=True))
    with pytest.raises(
        WeightsError, match=r"made for another network \(no_mem_embed is \(1, 1, 32\) there, \(1, 1, 64\)"
    ):
        start_sam2(recipe, replace(TOY, hq=True, dim=64))
    assert network_of(replace(recipe, network="sam2.1-hiera-tiny"), hq=True) == Sam2Config(hq=True)


COMMAND = """
network: {trunk: {embed_dim: 16, num_heads: 1, stages: [1, 1, 2, 1], global_blocks: [2], background: [4, 4]}, dim: 32,
          memory_dim: 8, image_size: 64, attention_layers: 1, attention_ff: 32}
start: ROOT/sam2.safetensors
folders: {root: ROOT/data, sets: ["im:gt"]}
loop: {steps: 1, lr: 1.0e-3, optimizer: adam}
images_per_batch: 1
points: 64
"""


def test_the_command_trains_and_model_takes_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe_of(tmp_path)
    config = tmp_path / "recipe.yaml"
    config.write_text(COMMAND.replace("ROOT", str(tmp_path)))
    assert main(["train", "hq", "--config", str(config), "--output", str(tmp_path / "run"), "--device", "cpu"]) == 0
    weights, image = tmp_path / "run" / "sam2_hq.safetensors", tmp_path / "data" / "im" / "toy_0.png"
    capsys.readouterr()
    assert main(["train", "hq", "--config", str(config), "--output", "none", "--dry-run", "--json"]) == 0
    learned = json.loads(capsys.readouterr().out)["trainable"]
    assert learned and all(name.startswith(LEARNED) for name in learned)
    command = ["image", str(image), "--model", str(weights), "--box", "5,5,40,40", "--output", str(tmp_path / "out")]
    assert main([*command, "--device", "cpu"]) == 0
