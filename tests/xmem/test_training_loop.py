"""The training loop: losses, learning, resuming, and the file it leaves."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

import paths
from tiny_bank import tiny_bank
from vidseg.config import load_yaml
from vidseg.errors import UsageError, WeightsError
from vidseg.weights.fit import config_from_metadata
from vidseg_pipelines.commands.train_xmem import TrainXmemCommand
from vidseg_trackers.xmem.config import XMemConfig
from vidseg_trackers.xmem.network import XMem
from vidseg_trackers.xmem.training.config import TrainConfig, TrainingStage
from vidseg_trackers.xmem.training.loop import training_loop
from vidseg_trackers.xmem.training.losses import bootstrapped_cross_entropy, dice_loss
from vidseg_trackers.xmem.training.model import compact_config, export_network
from vidseg_trackers.xmem.training.unroll import unroll
from vidseg_trackers.xmem.weights import load_network

CPU = torch.device("cpu")
NETWORK = {
    "key_dim": 16, "value_dim": 16, "hidden_dim": 8, "f16_dim": 128, "f8_dim": 40, "f4_dim": 24, "mask_dim": 16,
    "fuser_dim": 16, "g16_dim": 16, "g8_dim": 16, "g4_dim": 16, "sensory_dim": 16, "size": 64,
}  # fmt: skip


def recipe(**changes) -> TrainConfig:
    base = TrainConfig(  # all pixels all the time: the bootstrapped loss rises by design
        data="unused",
        stages=(TrainingStage(60, size=48, length=3, batch=3, clip_fraction=0.5),),
        network=NETWORK,
        object_chances=(1.0,),
        hardest=1.0,
        pretrained=False,
        learning_rate=3e-3,
        warmup=1,
        dtype="float32",
    )
    return replace(base, **changes)


def test_bootstrapped_cross_entropy_keeps_the_hardest_pixels() -> None:
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 0] = torch.tensor([[0.0, 10.0], [10.0, 10.0]])
    labels = torch.zeros(1, 2, 2, dtype=torch.long)
    quarter = bootstrapped_cross_entropy(logits, labels, 0.25)
    assert quarter.item() == pytest.approx(np.log(2), abs=1e-6)
    assert bootstrapped_cross_entropy(logits, labels, 1.0).item() == pytest.approx(np.log(2) / 4, abs=1e-4)


def test_dice_loss_by_hand() -> None:
    masks = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    assert dice_loss(masks, masks).item() == pytest.approx(0.0)
    assert dice_loss(1 - masks, masks).item() == pytest.approx(1 - 1 / 5)


def test_unrolled_probabilities_and_gradients() -> None:
    torch.manual_seed(0)
    network = XMem(XMemConfig(encoder="compact", **NETWORK))
    first = torch.zeros(2, 2, 48, 48)
    first[:, 0, :20], first[:, 1, 30:] = 1, 1
    outputs = unroll(network, torch.randn(2, 4, 3, 48, 48), {0: first}, [True, False, True])
    assert len(outputs) == 3 and outputs[0].shape == (2, 3, 48, 48)
    assert torch.allclose(F.softmax(outputs[-1], 1).sum(1), torch.ones(2, 48, 48), atol=1e-5)
    outputs[-1].sum().backward()
    for part in (network.key_encoder, network.key_proj, network.value_encoder, network.decoder):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_masks_that_are_given_later_change_only_what_follows() -> None:
    torch.manual_seed(0)
    network = XMem(XMemConfig(encoder="compact", **NETWORK)).eval()
    frames, masks = torch.randn(1, 4, 3, 48, 48), torch.zeros(2, 1, 1, 48, 48)
    masks[0, ..., :20], masks[1, ..., 30:] = 1, 1
    with torch.no_grad():
        plain = unroll(network, frames, {0: masks[0]}, [False, False, False])
        corrected = unroll(network, frames, {0: masks[0], 2: masks[1]}, [False, False, False])
        remembered = unroll(network, frames, {0: masks[0]}, [False, True, False])
    assert all(torch.equal(a, b) for a, b in zip(plain[:2], corrected[:2], strict=True))
    assert not torch.equal(plain[2], corrected[2])
    assert not torch.equal(remembered[2], corrected[2])


def test_a_run_starts_from_weights_and_corrects_frames(tmp_path) -> None:
    export_network(XMem(XMemConfig(encoder="compact", **NETWORK)), tmp_path / "start.safetensors", {})
    stage = TrainingStage(2, size=32, length=4, batch=1, given_chance=1.0, leave_chance=1.0)
    config = recipe(start=str(tmp_path / "start.safetensors"), network={}, stages=(stage,), frozen_trunk_stages=4)
    loop = training_loop(config, tiny_bank(), tmp_path / "run", CPU)
    start = load_network(config.start, device=CPU, offline=True).state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in loop.model.state_dict().items())
    loop.run()
    changed = [name for name, tensor in loop.model.state_dict().items() if not torch.equal(tensor, start[name])]
    assert any(name.startswith("decoder.") for name in changed)
    assert not any(name.startswith("key_encoder.trunk.") for name in changed)


def test_a_short_run_learns_and_resumes_identically(tmp_path) -> None:
    loop = training_loop(recipe(log_every=10, checkpoint_every=50), tiny_bank(), tmp_path, CPU)
    frozen = loop.model.key_encoder.trunk.stem.weight.clone()
    kept = {}

    def keep(step: int) -> dict[str, float]:
        kept[step] = (tmp_path / "last.pt").read_bytes()
        return {}

    loop.run(keep)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records]
    assert [record["step"] for record in records] == [10, 20, 30, 40, 50, 60]
    assert np.mean(losses[-2:]) < 0.8 * losses[0]
    assert torch.equal(loop.model.key_encoder.trunk.stem.weight, frozen)
    (tmp_path / "last.pt").write_bytes(kept[50])
    resumed = training_loop(recipe(log_every=10, checkpoint_every=50), tiny_bank(), tmp_path, CPU)
    resumed.resume()
    assert resumed.step == 50
    resumed.run()
    for name, tensor in loop.average.items():
        assert torch.equal(tensor, resumed.average[name]), name


def test_only_a_checkpoint_of_the_same_recipe_is_continued(tmp_path) -> None:
    training_loop(recipe(), tiny_bank(), tmp_path, CPU).save()
    training_loop(recipe(threads=2, log_every=1, data="moved"), tiny_bank(), tmp_path, CPU).resume()
    with pytest.raises(UsageError, match=r"made differently: learning_rate 0.003, now 0.1; warmup 1, now 5"):
        training_loop(recipe(learning_rate=0.1, warmup=5), tiny_bank(), tmp_path, CPU).resume()


def test_the_command_trains_on_a_device_and_resumes_only_what_there_is(tmp_path, monkeypatch, capsys) -> None:
    asked = []

    def tiny_loop(config, bank, folder, device):
        asked.append(device)
        return training_loop(config, bank, folder, device)

    monkeypatch.setattr("vidseg_trackers.xmem.training.loop.load_bank", lambda *_, **__: tiny_bank())
    monkeypatch.setattr("vidseg_trackers.xmem.training.loop.training_loop", tiny_loop)
    stage = "{iterations: 2, size: 32, length: 2, batch: 1}"
    options = f"pretrained: false\nlog_every: 1\nstages: [{stage}]\nnetwork: {json.dumps(NETWORK)}\n"
    (tmp_path / "recipe.yaml").write_text(f"data: here\n{options}")
    command = TrainXmemCommand(tmp_path / "recipe.yaml", tmp_path / "run", device="cpu")
    with pytest.raises(WeightsError, match=r"last\.pt: no checkpoint to resume from"):
        replace(command, resume=True).run()
    assert command.run() == 0
    assert asked == [CPU, CPU]
    assert "step 1/2  loss " in capsys.readouterr().err
    assert load_network(str(tmp_path / "run" / "compact-xmem.safetensors"), device=CPU, offline=True).config.size == 64
    with pytest.raises(UsageError, match="already holds a training run; add --resume"):
        command.run()


def test_the_exported_file_holds_config_and_weights(tmp_path) -> None:
    network = XMem(XMemConfig(encoder="compact", **NETWORK))
    export_network(network, tmp_path / "w.safetensors", {"iteration": "3"})
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert config_from_metadata(XMemConfig, file.metadata()["config"], "w") == network.config
        again = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    for name, tensor in network.state_dict().items():
        assert torch.allclose(again[name], tensor, rtol=1e-3, atol=1e-6), name


def test_recipe_values_are_checked() -> None:
    with pytest.raises(UsageError, match="object_chances"):
        recipe(object_chances=(0.5, 0.1))
    with pytest.raises(UsageError, match=r"given_chance 40: expected 0 to 1"):
        TrainingStage(2, given_chance=40)
    stages = (TrainingStage(2, size=32), TrainingStage(3, size=64))
    assert [recipe(stages=stages).stage_at(i).size for i in (0, 1, 2, 4)] == [32, 32, 64, 64]


def test_the_recipe_in_the_repository_is_valid() -> None:
    path = paths.ROOT / "configs" / "training" / "xmem-compact.yaml"
    config = load_yaml(TrainConfig, path)
    assert config.iterations == sum(stage.iterations for stage in config.stages)
    assert compact_config(config.network).encoder == "compact"


def test_the_embedded_file_is_the_network_of_the_recipe() -> None:
    path = paths.ROOT / "configs" / "training" / "xmem-compact.yaml"
    network = load_network("compact-xmem", device=torch.device("cpu"), dtype=torch.float32, offline=True)
    assert network.config == compact_config(load_yaml(TrainConfig, path).network)
