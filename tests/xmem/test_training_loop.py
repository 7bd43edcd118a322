"""The training loop: losses, learning, resuming, and the file it leaves."""

from __future__ import annotations

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
from vidseg_trackers.xmem.config import XMemConfig
from vidseg_trackers.xmem.network import XMem
from vidseg_trackers.xmem.training.config import TrainConfig, TrainingStage
from vidseg_trackers.xmem.training.loop import Trainer
from vidseg_trackers.xmem.training.losses import bootstrapped_cross_entropy, dice_loss
from vidseg_trackers.xmem.training.model import compact_config, export
from vidseg_trackers.xmem.training.unroll import unroll
from vidseg_trackers.xmem.weights import load_network

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
    outputs = unroll(network, torch.randn(2, 4, 3, 48, 48), first, [True, False, True])
    assert len(outputs) == 3 and outputs[0].shape == (2, 3, 48, 48)
    assert torch.allclose(F.softmax(outputs[-1], 1).sum(1), torch.ones(2, 48, 48), atol=1e-5)
    outputs[-1].sum().backward()
    for part in (network.key_encoder, network.key_proj, network.value_encoder, network.decoder):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_a_short_run_learns_and_resumes_identically(tmp_path) -> None:
    torch.set_num_threads(1)
    trainer = Trainer(recipe(), tiny_bank())
    frozen = trainer.network.key_encoder.trunk.stem.weight.clone()
    losses = []
    while trainer.iteration < 60:
        if trainer.iteration == 50:
            trainer.save(tmp_path / "checkpoint.pt")
        losses.append(trainer.step()["loss"])
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:10])
    assert torch.equal(trainer.network.key_encoder.trunk.stem.weight, frozen)
    resumed = Trainer(recipe(), tiny_bank())
    resumed.load(tmp_path / "checkpoint.pt")
    assert [resumed.step()["loss"] for _ in range(10)] == losses[50:]
    for name, tensor in trainer.average.items():
        assert torch.equal(tensor, resumed.average[name]), name


def test_only_a_whole_checkpoint_of_the_same_recipe_is_continued(tmp_path) -> None:
    path = tmp_path / "checkpoint.pt"
    Trainer(recipe(), tiny_bank()).save(path)
    Trainer(recipe(threads=2, log_every=1, data="moved"), tiny_bank()).load(path)
    with pytest.raises(UsageError, match=r"made differently: learning_rate 0.003, now 0.1; warmup 1, now 5"):
        Trainer(recipe(learning_rate=0.1, warmup=5), tiny_bank()).load(path)
    whole = path.read_bytes()
    network = torch.load(path, weights_only=True)["network"]
    for content in (b"", b"not a checkpoint", whole[:-1], whole[:2000]):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"checkpoint\.pt"):
            Trainer(recipe(), tiny_bank()).load(path)
    torch.save(network, path)
    with pytest.raises(WeightsError, match=r"checkpoint\.pt: not a checkpoint of this recipe"):
        Trainer(recipe(), tiny_bank()).load(path)


def test_the_exported_file_holds_config_and_weights(tmp_path) -> None:
    network = XMem(XMemConfig(encoder="compact", **NETWORK))
    export(network, tmp_path / "w.safetensors", {"iteration": "3"})
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert config_from_metadata(XMemConfig, file.metadata()["config"], "w") == network.config
        again = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    for name, tensor in network.state_dict().items():
        assert torch.allclose(again[name], tensor, rtol=1e-3, atol=1e-6), name


def test_recipe_values_are_checked() -> None:
    with pytest.raises(UsageError, match="object_chances"):
        recipe(object_chances=(0.5, 0.1))
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
