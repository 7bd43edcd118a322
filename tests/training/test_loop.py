"""The loop, the recipes and the commands on toy networks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import paths
from training_toys import CPU, TOY, Line, Partly, hq_recipe, run_line, train_partly, write_folder
from vidseg.config import load_yaml
from vidseg.errors import UsageError, WeightsError
from vidseg.loading import load_sam
from vidseg.sam.build import build_sam
from vidseg.sam.config import SamConfig
from vidseg.sam.hq import HQ_PARTS
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.training.loop import Loop
from vidseg.training.recipe import Recipe, SceneData
from vidseg.training.schedule import BatchRandomness, LoopConfig
from vidseg.training.trainer import find_items, network_of, start, train
from vidseg.weights.read import read_checkpoint, read_weights
from vidseg_pipelines.commands.train import TrainHqCommand

LEARNED = tuple(f"mask_decoder.{part}" for part in HQ_PARTS)


def test_loop_learns_and_logs(tmp_path: Path) -> None:
    model, loop = run_line(tmp_path, LoopConfig(steps=300, lr=0.05, ema=0.9, clip=5.0, warmup=5))
    torch.testing.assert_close(model.w.weight[0], torch.tensor([1.0, -2.0, 0.5]), atol=0.02, rtol=0)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 300 and records[-1]["loss"] < 1e-2 < records[0]["loss"]
    with loop.averaged() as average:
        assert not average.training
    assert model.fixed.item() == 1 and "fixed" not in loop.average


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_resumed_run_equals_one_that_was_never_stopped(tmp_path: Path, optimizer: str) -> None:
    config = LoopConfig(steps=40, lr=0.02, ema=0.95, save_every=15, optimizer=optimizer)  # type: ignore[arg-type]
    whole, whole_loop = run_line(tmp_path / "a", config)
    torch.manual_seed(0)
    model = Line()
    loop = Loop(model, model.loss, config, tmp_path / "b")
    calls = 0

    def fail(draw: BatchRandomness) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls > 22:
            raise KeyboardInterrupt
        return model.loss(draw)

    loop.loss = fail
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    resumed, resumed_loop = run_line(tmp_path / "b", config, resume=True)
    assert torch.equal(whole.w.weight, resumed.w.weight)
    assert torch.equal(whole_loop.average["w.weight"], resumed_loop.average["w.weight"])


def test_accumulation_is_the_mean_of_its_batches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Line()
    loop = Loop(model, model.loss, LoopConfig(steps=1, lr=1e-9, accumulate=3), tmp_path)
    loop.run()
    found = model.w.weight.grad
    model.zero_grad()
    for part in range(3):
        (model.loss(BatchRandomness.of(0, 0, part, 3))["loss"] / 3).backward()
    torch.testing.assert_close(found, model.w.weight.grad)


def test_rates() -> None:
    cosine = LoopConfig(steps=100, lr=1.0, warmup=10, decay=0.5)
    assert [cosine.rate(s) for s in (0, 9, 50)] == [0.1, 1.0, 1.0]
    assert cosine.rate(75) == pytest.approx(0.51) and cosine.rate(100) == pytest.approx(0.02)
    step = LoopConfig(steps=12, lr=1e-3, schedule="step", milestone=10).times(5)
    assert (step.steps, step.rate(49), step.rate(50)) == (60, 1e-3, pytest.approx(1e-4))


def test_tensorboard_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run_line(tmp_path, LoopConfig(steps=2, lr=0.1, log_every=1, tensorboard=True))
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_bad_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="steps 0"):
        LoopConfig(steps=0, lr=1.0)
    with pytest.raises(UsageError, match="either 'scenes' or 'folders'"):
        Recipe(network=TOY, loop=LoopConfig(steps=1, lr=1.0))
    model = Line()
    loop = Loop(model, model.loss, LoopConfig(steps=1, lr=1.0), tmp_path)
    with pytest.raises(WeightsError, match="no checkpoint"):
        loop.resume()
    loop.save()
    other = nn.Linear(2, 2)
    with pytest.raises(WeightsError, match="other parameters"):
        Loop(other, lambda _: {}, LoopConfig(steps=1, lr=1.0), tmp_path).resume()
    bad = Loop(model, lambda _: {"loss": model.w.weight.sum() * float("nan")}, LoopConfig(steps=1, lr=1.0), tmp_path)
    with pytest.raises(WeightsError, match="diverged at step 0"):
        bad.run()


def test_hq_run_changes_only_the_hq_parts(tmp_path: Path) -> None:
    recipe = hq_recipe(tmp_path)
    result = read_weights(train(recipe, tmp_path / "run", True, False, CPU)).tensors
    before = read_weights(tmp_path / "sam.pth").tensors
    assert set(result) == set(build_sam(TOY).state_dict())
    assert all(torch.equal(result[k], v) for k, v in before.items())
    fresh = start(recipe, TOY).state_dict()
    assert all(not torch.equal(result[k], fresh[k]) for k in result if k.startswith(LEARNED))
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    scores = [r for r in records if "hq_miou" in r]
    assert [r["step"] for r in scores] == [3, 6] and 0 <= scores[-1]["sum_mbiou"] <= 1  # 6 images, 2 a batch, 2 epochs


def test_a_whole_run_changes_sam_and_the_hq_parts(tmp_path: Path) -> None:
    frozen = ("image_encoder.patch_embed",)
    loop = LoopConfig(steps=4, lr=1e-3, save_every=4)
    recipe = hq_recipe(tmp_path, whole=True, frozen=frozen, second_round_share=1.0, unit="step", loop=loop)
    before = start(recipe, TOY).state_dict()
    result = read_weights(train(recipe, tmp_path / "run", True, False, CPU)).tensors
    changed = {k for k in result if not torch.equal(result[k], before[k].to(result[k].dtype))}
    assert not any(k.startswith(frozen) for k in changed)
    assert any(k.startswith("image_encoder.blocks") for k in changed)
    assert all(k in changed for k in result if k.endswith("weight") and k.startswith(LEARNED))
    with pytest.raises(UsageError, match="'whole' trains SAM and the HQ parts together"):
        network_of(replace(recipe, network=replace(TOY, hq=False, output="sam")), hq=False)


def test_an_early_stop_gives_the_weights_of_that_step(tmp_path: Path) -> None:
    recipe = hq_recipe(tmp_path, unit="step", loop=LoopConfig(steps=4, lr=1e-3, ema=0.5, save_every=2))
    short = replace(recipe, loop=replace(recipe.loop, stop=2))
    stopped = read_weights(train(short, tmp_path / "a", True, False, CPU)).tensors
    train(recipe, tmp_path / "b", True, False, CPU)
    longer = read_weights(train(recipe, tmp_path / "a", True, True, CPU)).tensors  # the stopped run goes on
    whole = read_weights(tmp_path / "b" / "sam_hq.pth").tensors
    assert all(torch.equal(whole[k], longer[k]) for k in whole)
    assert any(not torch.equal(whole[k], stopped[k]) for k in whole)
    with pytest.raises(UsageError, match="stop 5 must be a step of the 4"):
        LoopConfig(steps=4, lr=1e-3, stop=5)


def test_resumed_hq_run_is_identical(tmp_path: Path) -> None:
    recipe = hq_recipe(tmp_path)
    whole = read_weights(train(recipe, tmp_path / "a", True, False, CPU)).tensors
    train(replace(recipe, loop=replace(recipe.loop, steps=1, milestone=1)), tmp_path / "b", True, False, CPU)
    parts = read_weights(train(recipe, tmp_path / "b", True, True, CPU)).tensors
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


def test_ablation_silences_a_feature(tmp_path: Path) -> None:
    recipe = hq_recipe(tmp_path, ablate=("early",))
    sam = start(recipe, TOY)
    early = torch.randn(1, 24, 4, 4)
    assert sam.mask_decoder.compress_vit_feat(early.flatten(2).transpose(1, 2)).abs().max() == 0
    assert not any(p.requires_grad for p in sam.mask_decoder.compress_vit_feat.parameters())
    assert sam.mask_decoder.hf_token.weight.requires_grad


def test_the_hq_token_on_sams_own_feature(tmp_path: Path) -> None:
    recipe = hq_recipe(tmp_path, ablate=("fusion",))
    path = train(recipe, tmp_path / "run", True, False, CPU)
    learned = {k for k in read_weights(path).tensors if k.startswith(LEARNED)}
    assert learned and all(k.startswith(("mask_decoder.hf_token", "mask_decoder.hf_mlp")) for k in learned)
    sam = load_sam(path)
    decoder = sam.mask_decoder
    decoder.hf_token.weight.copy_(decoder.mask_tokens.weight[:1])
    decoder.hf_mlp.load_state_dict(decoder.output_hypernetworks_mlps[0].state_dict())
    features = sam.encode([np.zeros((40, 64, 3), np.uint8)])
    prompts = [PromptBatch(boxes=np.array([[4, 4, 30, 30]], np.float32))]
    own, hq = (sam.decode(features, prompts, output=output)[0].logits for output in ("sam", "hq"))
    assert own.abs().max() > 0
    torch.testing.assert_close(hq, own)


def test_stage_and_start_must_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="with the HQ branch"):
        train(hq_recipe(tmp_path, network=replace(TOY, hq=False, output="sam")), tmp_path / "r", True, False, CPU)
    with pytest.raises(UsageError, match="name its weights as 'start'"):
        train(hq_recipe(tmp_path, start=None), tmp_path / "r", True, False, CPU)
    with pytest.raises(WeightsError, match="made for another network"):
        train(hq_recipe(tmp_path, network=replace(TOY, prompt_dim=64)), tmp_path / "r", True, False, CPU)


def compact_recipe(root: Path, steps: int) -> Recipe:
    network = SamConfig(
        encoder="compact", hq=False, output="sam", image_size=96, pad="stride", prompt_dim=32, early_channels=128,
        early_stride=4, decoder_mlp_dim=32, decoder_heads=2, iou_hidden_dim=16, prompt_map=True,
        pixel_mean=(127.0,) * 3, pixel_std=(128.0,) * 3,
    )  # fmt: skip
    return Recipe(
        network=network,
        loop=LoopConfig(steps=steps, lr=3e-3, warmup=10, clip=5.0),
        scenes=SceneData(root=root, weights={"toy": 1.0}, held_out=0),
        images_per_batch=2,
        prompts=2,
        points=256,
        shapes=((64, 96),),
        frozen=("image_encoder.trunk",),
    )


def test_compact_learns_from_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidseg.training.trainer.load_imagenet", lambda trunk: None)
    write_folder(tmp_path / "data" / "train")
    (tmp_path / "data" / "train" / "im").rename(tmp_path / "data" / "train" / "images")
    (tmp_path / "data" / "train" / "gt").rename(tmp_path / "data" / "train" / "masks")
    path = train(compact_recipe(tmp_path / "data", 100), tmp_path / "run", False, False, CPU)
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert records[-1]["single"] < 0.8 * records[0]["single"]
    file = read_weights(path)
    assert json.loads(file.metadata["config"])["prompt_map"] is True
    assert all(t.dtype == torch.float16 for t in file.tensors.values())


def test_what_shows_a_development_clip_is_left_out(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / "train" / name).mkdir(parents=True)
    image = np.full((8, 8), 255, np.uint8)
    for name in ("davis_bear-00001", "davis_cow-00001", "toy_1"):
        cv2.imwrite(str(tmp_path / "train" / "images" / f"{name}.jpg"), image)
        cv2.imwrite(str(tmp_path / "train" / "masks" / f"{name}.png"), image)
    for name in ("bear", "cow", "dog"):
        for part in ("frames", "masks"):
            (tmp_path / "videos" / name / part).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "videos" / name / "frames" / "0.jpg"), image)
        cv2.imwrite(str(tmp_path / "videos" / name / "masks" / "0.png"), image // 255)
    data = SceneData(root=tmp_path, weights={"davis": 1.0, "toy": 1.0, "video": 1.0}, held_out=0)
    training, choosing = find_items(data)
    assert [i.name for i in training] == ["davis_cow-00001", "toy_1", "cow-0"] and not choosing


@pytest.mark.parametrize("path", sorted(paths.ROOT.glob("configs/training/[ch][oq]*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    recipe = load_yaml(Recipe, path)
    assert recipe.loop.steps >= 12


COMMAND = """
network: {encoder: vit, vit: {embed_dim: 24, depth: 2, num_heads: 2, global_blocks: [1], window: 2}, image_size: 64,
          prompt_dim: 32, early_channels: 24, decoder_mlp_dim: 32, decoder_heads: 2, iou_hidden_dim: 16}
start: ROOT/sam.pth
folders: {root: ROOT/data, sets: ["im:gt"]}
loop: {steps: 2, lr: 1.0e-3, optimizer: adam, accumulate: ACCUMULATE}
images_per_batch: 1
points: 64
"""


def test_two_processes_equal_one_with_twice_the_batches(tmp_path: Path) -> None:
    train_partly(tmp_path / "partly-one", 2)
    hq_recipe(tmp_path)
    text = COMMAND.replace("ROOT", str(tmp_path))
    (tmp_path / "one.yaml").write_text(text.replace("ACCUMULATE", "2"))
    (tmp_path / "two.yaml").write_text(text.replace("ACCUMULATE", "1"))
    assert TrainHqCommand(config=tmp_path / "one.yaml", output=tmp_path / "one", device="cpu").run() == 0
    with pytest.raises(UsageError, match="--resume"):
        TrainHqCommand(config=tmp_path / "one.yaml", output=tmp_path / "one", device="cpu").run()
    script = f"""
from pathlib import Path
import torch.distributed as group
from training_toys import train_partly
from vidseg_pipelines.commands.train import TrainHqCommand

end, group.destroy_process_group = group.destroy_process_group, lambda: None  # one group for both trainings
folder = Path({str(tmp_path)!r})
TrainHqCommand(config=folder / "two.yaml", output=folder / "two", device="cpu").run()
train_partly(folder / "partly-two", 1, group.get_rank(), 2)
end()
"""
    (tmp_path / "worker.py").write_text(script)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            tmp_path / "worker.py",
        ],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        timeout=600,
    )
    one = read_weights(tmp_path / "one" / "sam_hq.pth").tensors
    two = read_weights(tmp_path / "two" / "sam_hq.pth").tensors
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-4)
    alone, shared = (read_checkpoint(tmp_path / f"partly-{name}" / "last.pt")["model"] for name in ("one", "two"))
    for name, value in alone.items():
        torch.testing.assert_close(shared[name], value, atol=1e-6, rtol=1e-5)
    assert torch.equal(shared["never.weight"], Partly().never.weight)


def test_candidates_differ_although_hq_alone_is_the_default() -> None:
    torch.manual_seed(0)
    sam = build_sam(replace(TOY, output="hq")).eval()
    features = sam.encode([np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)])
    prompts = [PromptBatch(boxes=np.array([[16.0, 8.0, 48.0, 40.0]]))]
    (three,) = sam.decode(features, prompts, candidates="all")
    assert not torch.equal(three.logits[0, 0], three.logits[0, 1])
    (one,), (hq,) = sam.decode(features, prompts), sam.decode(features, prompts, output="hq")
    assert torch.equal(one.logits, hq.logits)


def test_drawn_prompts_reach_the_decoder() -> None:
    torch.manual_seed(0)
    config = SamConfig(
        encoder="compact", image_size=64, pad="stride", prompt_dim=16, early_channels=128, early_stride=4,
        decoder_mlp_dim=16, decoder_heads=2, iou_hidden_dim=8, prompt_map=True,
    )  # fmt: skip
    sam = build_sam(config).eval()
    features = sam.encode([np.zeros((64, 64, 3), np.uint8)])
    seen = []
    hook = sam.prompt_encoder.mask_downscaling.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    boxes = np.array([[16.0, 8.0, 48.0, 40.0]])
    sam.decode(features, [PromptBatch(boxes=boxes)])
    sam.decode(features, [PromptBatch(points=np.array([[[32.0, 32.0]]]), labels=np.array([[0]]))])
    hook.remove()
    box, point = seen[0][0, 0], seen[1][0, 0]
    assert box[5, 8] == 2 and box[0, 0] == -10 and box[2:10, 4:12].min() == 2 and (box == 2).sum() == 64
    assert point[8, 8] == -10 and point[0, 0] == 0
