"""The training variants of the HQ-SAM paper: what learns in each, how large it is, and that its weights load."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import paths
from training_toys import CPU, TOY, hq_recipe
from vidseg.config import load_yaml
from vidseg.errors import UsageError, WeightsError
from vidseg.loading import load_sam
from vidseg.sam.added_weights import join_added
from vidseg.sam.build import build_sam, from_state, save_sam
from vidseg.sam.config import SamConfig
from vidseg.sam.lora import add_lora, merge_lora
from vidseg.sam.model import Sam
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.training.folders import find_sets, folder_batch
from vidseg.training.losses import bce, dice
from vidseg.training.objectives import mask_loss
from vidseg.training.recipe import LoraConfig, Recipe
from vidseg.training.trainer import network_of, start, train
from vidseg.weights import weights_identity
from vidseg.weights.read import read_weights
from vidseg_pipelines.commands.train import TrainHqCommand

PLAIN = replace(TOY, hq=False, output="sam")
HQ = ("hf_token", "hf_mlp", "compress_vit_feat", "embedding_encoder", "embedding_maskfeature")
TOKEN = tuple(f"mask_decoder.{part}." for part in HQ[:2])
ALL_HQ = tuple(f"mask_decoder.{part}." for part in HQ)
LEARNS = {
    "sam-vit-l-context": ("mask_decoder.context_tokens.weight",),
    "hq-vit-l-context": (*ALL_HQ, "mask_decoder.context_tokens.weight"),
    "hq-vit-l-dot-product": TOKEN,
    "hq-vit-l-boundary-loss": TOKEN,
    "hq-vit-l-fpn": (*TOKEN, "mask_decoder.pyramid."),
    "sam-vit-l-whole": ("image_encoder.", "prompt_encoder.", "mask_decoder."),
    "sam-vit-l-decoder": ("mask_decoder.",),
    "sam-vit-l-output-token": ("mask_decoder.mask_tokens.weight", "mask_decoder.output_hypernetworks_mlps.0."),
    "sam-vit-l-lora": ("image_encoder.blocks.",),
    "sam-vit-l-adapter": ("image_encoder.blocks.",),
    "hq-vit-l-sa1b": ALL_HQ,
}
"""Prefixes of what learns, by recipe."""
ADDED = {"sam-vit-l-lora": ".lora_", "sam-vit-l-adapter": "_adapter."}


def learns(recipe: str, name: str) -> bool:
    return name.startswith(LEARNS[recipe]) and ADDED.get(recipe, "") in name


def toy_recipe(name: str, tmp_path: Path) -> Recipe:
    """The shipped recipe with a toy network and toy data, three steps."""
    shipped = load_yaml(Recipe, paths.ROOT / f"configs/training/{name}.yaml")
    toy = hq_recipe(tmp_path)
    loop = replace(shipped.loop, steps=3, milestone=0, save_every=3, validate_every=0, lr=1e-2)
    return replace(
        shipped,
        network=TOY if name.startswith("hq") else PLAIN,
        start=toy.start,
        folders=toy.folders,
        loop=loop,
        unit="step",
        images_per_batch=2,
        points=64,
        autocast="none",
    )


def boxes_on(sam: object, output: str | None = None) -> torch.Tensor:
    assert isinstance(sam, Sam)
    image = np.random.default_rng(3).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    prompts = [PromptBatch(boxes=np.array([[4, 4, 30, 30], [20, 8, 60, 40]], np.float32))]
    return sam.decode(sam.encode([image]), prompts, output)[0].logits  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LEARNS)
def test_only_what_the_recipe_names_learns_and_the_file_loads(name: str, tmp_path: Path) -> None:
    recipe = toy_recipe(name, tmp_path)
    before = start(recipe, network_of(recipe, True))
    assert {k for k, p in before.named_parameters() if p.requires_grad} == {
        k for k, _ in before.named_parameters() if learns(name, k)
    }
    path = train(recipe, tmp_path / "run", True, False, CPU)
    assert [p.name for p in (tmp_path / "run").iterdir() if p.suffix in (".pth", ".safetensors")] == [path.name]
    model = f"{recipe.start}+{path}" if name in ADDED else str(path)
    sam = load_sam(model)
    state = sam.state_dict()
    if name == "sam-vit-l-lora":
        assert set(read_weights(path).tensors) == {k for k in before.state_dict() if ".lora_" in k}
        state = {**before.state_dict(), **read_weights(path).tensors}
    changed = {k for k, v in before.state_dict().items() if not torch.equal(v, state[k])}
    assert changed and all(learns(name, k) for k in changed), changed
    untouched = {k for k in before.state_dict() if learns(name, k)} - changed
    assert name == "sam-vit-l-whole" or not [k for k in untouched if not without_gradient(k)], untouched
    assert boxes_on(sam).abs().max() > 0
    assert sam.config.output == ("sum" if name.startswith("hq") else "sam")
    assert len(weights_identity(model)["sha256"]) == (129 if name in ADDED else 64)


def without_gradient(name: str) -> bool:
    """Parameters that the single mask does not depend on."""
    return name.startswith(
        ("mask_decoder.iou_prediction_head.", *(f"mask_decoder.output_hypernetworks_mlps.{i}." for i in (1, 2, 3)))
    )


@pytest.mark.parametrize(
    ("name", "trainable", "total"),
    [
        ("sam-vit-l-lora", 1.5, 1192.5),
        ("sam-vit-l-adapter", 12.0, 1203.0),
        ("hq-vit-l", 5.1, 1196.1),
        ("sam-vit-l-whole", 1191.0, 1191.0),
    ],
)
def test_sizes_of_vit_l_are_those_of_tables_1_and_9(
    name: str, trainable: float, total: float, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = paths.ROOT / f"configs/training/{name}.yaml"
    assert TrainHqCommand(config=config, output=tmp_path / "none", dry_run=True, json=True).run() == 0
    told = json.loads(capsys.readouterr().out)
    assert told["trainable_mib"] == pytest.approx(trainable, rel=0.02)
    assert told["total_mib"] == pytest.approx(total, rel=0.02)
    count = sum(int(np.prod(shape)) for shape in told["trainable"].values())
    assert 4 * count / 2**20 == pytest.approx(told["trainable_mib"])
    assert not (tmp_path / "none").exists()


def test_context_tokens_alone_are_three_vectors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    TrainHqCommand(
        config=paths.ROOT / "configs/training/sam-vit-l-context.yaml", output=tmp_path, dry_run=True, json=True
    ).run()
    assert json.loads(capsys.readouterr().out)["trainable"] == {"mask_decoder.context_tokens.weight": [3, 256]}


def lora_pair() -> tuple[Sam, Sam]:
    """A toy with LoRA that has learned something, and the same merged."""
    torch.manual_seed(0)
    sam = build_sam(PLAIN)
    add_lora(sam, 4)
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if name.endswith("up.weight"):
                parameter.normal_(0, 0.1)
    merged = from_state(PLAIN, merge_lora(sam.state_dict()), "toy")
    return sam.eval(), merged


def test_merged_lora_draws_the_same_masks() -> None:
    sam, merged = lora_pair()
    torch.testing.assert_close(boxes_on(merged), boxes_on(sam), atol=1e-5, rtol=0)
    torch.manual_seed(0)
    assert (boxes_on(merged) - boxes_on(build_sam(PLAIN).eval())).abs().max() > 1e-3


def test_lora_on_another_base_and_alone_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = toy_recipe("sam-vit-l-lora", tmp_path)
    path = train(recipe, tmp_path / "run", True, False, CPU)
    torch.manual_seed(9)
    save_sam(build_sam(PLAIN), tmp_path / "other.pth")
    save_sam(build_sam(replace(PLAIN, prompt_dim=64)), tmp_path / "wider.pth")
    for other in ("other.pth", "wider.pth"):
        with pytest.raises(WeightsError, match=rf"trained on another SAM than .*{other}") as error:
            load_sam(f"{tmp_path / other}+{path}")
        assert "\n" not in str(error.value)
    with pytest.raises(WeightsError, match=r"holds only what was trained beside a SAM.*BASE\+FILE"):
        load_sam(path)
    monkeypatch.setattr("vidseg.sam2.loading.is_sam2", lambda names: True)
    with pytest.raises(WeightsError, match=r"sam\.pth is a SAM 2"):
        load_sam(f"{tmp_path / 'sam.pth'}+{path}")
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="expected LoRA or adapters"):
        load_sam(f"{tmp_path / 'sam.pth'}+{tmp_path / 'other.pth'}")
    file = read_weights(path)
    base = read_weights(tmp_path / "sam.pth").tensors
    assert join_added({k: v.half().float() if "neck" not in k else v for k, v in base.items()} | base, "b", file)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"lora": {"rank": 0}, "learn": []}, "rank 0"),
        ({"adapters": {"width": 0}, "learn": []}, "width 0"),
        ({"lora": {"rank": 4}, "learn": ["decoder"]}, "need a frozen SAM"),
        ({"learn": []}, "needs something that is added"),
        ({"learn": ["decoder"], "pyramid": True}, "change the HQ branch"),
        ({"pyramid": True, "ablate": ["early"]}, "use one of them"),
        ({"learn": ["encoder"]}, "learn"),
        ({"context_tokens": -1}, "context_tokens -1"),
        ({"learn": ["hq", "sam"]}, "name it alone"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(
    changes: dict[str, object], complaint: str, tmp_path: Path
) -> None:
    text = (paths.ROOT / "configs/training/hq-vit-l.yaml").read_text()
    (tmp_path / "r.yaml").write_text(text + "\n".join(f"{k}: {json.dumps(v)}" for k, v in changes.items()))
    with pytest.raises(UsageError, match=complaint) as error:
        load_yaml(Recipe, tmp_path / "r.yaml")
    assert "\n" not in str(error.value)


def test_lora_and_adapters_need_a_vit(tmp_path: Path) -> None:
    compact = SamConfig(encoder="compact", hq=False, output="sam", prompt_dim=32, decoder_heads=2, pad="stride")
    with pytest.raises(UsageError, match="'compact'"):
        add_lora(build_sam(compact), 4)
    with pytest.raises(UsageError, match="'compact'"):
        replace(compact, adapter_dim=4)
    with pytest.raises(UsageError, match="rank 99: expected 1 to 24"):
        add_lora(build_sam(PLAIN), 99)
    with pytest.raises(UsageError, match="for `vidseg train hq`"):
        network_of(replace(hq_recipe(tmp_path, network=PLAIN), learn=(), lora=LoraConfig(2)), hq=False)


def test_untrained_lora_and_adapters_change_nothing() -> None:
    torch.manual_seed(0)
    plain = build_sam(PLAIN).eval()
    torch.manual_seed(0)
    with_lora = build_sam(PLAIN).eval()
    add_lora(with_lora, 2)
    adapted = build_sam(replace(PLAIN, adapter_dim=8)).eval()
    adapted.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(boxes_on(plain), boxes_on(with_lora)) and torch.equal(boxes_on(plain), boxes_on(adapted))


def test_the_loss_on_the_boundary_sees_no_other_point() -> None:
    logits, targets = torch.tensor([[2.0, -1.0, 0.5, -3.0]]), torch.tensor([[1.0, 0.0, 0.2, 0.0]])
    near = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert torch.equal(bce(logits, targets, near), bce(logits[:, :2], targets[:, :2]))
    assert torch.equal(dice(logits, targets, near), dice(logits[:, :2], targets[:, :2]))


def test_the_loss_on_the_boundary_is_another_one(tmp_path: Path) -> None:
    recipe = hq_recipe(tmp_path)
    sam = start(recipe, TOY)
    batch = folder_batch(np.random.default_rng(0), find_sets(tmp_path / "data", ["im:gt"])[:2], 64, (1.0, 1.0))
    both = [mask_loss(sam, batch, 64, torch.Generator().manual_seed(1), only)["loss"] for only in (False, True)]
    assert both[0] != both[1]
