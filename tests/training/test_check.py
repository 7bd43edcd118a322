"""What a training says of its data and its checkpoint before the first step, and what survives when it ends early."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sam_oracle import rule_tensor, vectors
from training_toys import CPU, Line, hq_recipe, write_folder
from vidseg.datasets.pairs import find_clips, find_pairs, load, load_cutout
from vidseg.errors import InputError, PartialError, UsageError, VidsegError, WeightsError
from vidseg.loading import load_sam
from vidseg.locks import file_lock
from vidseg.sam.build import save_sam
from vidseg.training.check import check_items
from vidseg.training.folders import find_sets
from vidseg.training.loop import Loop
from vidseg.training.recipe import FolderData, Recipe
from vidseg.training.schedule import BatchRandomness, LoopConfig
from vidseg.training.trainer import find_items, start, train
from vidseg.weights.read import read_checkpoint, read_weights
from vidseg_pipelines.commands.train import training_in


def log_of(folder: Path) -> list[dict[str, float]]:
    path = folder / "log.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def two_steps(tmp_path: Path, name: str = "run", data: str = "data", **changes: object) -> list[dict[str, float]]:
    recipe = hq_recipe(tmp_path, unit="step")
    recipe = replace(recipe, folders=replace(recipe.folders, root=tmp_path / data), **changes)  # type: ignore[type-var]
    train(recipe, tmp_path / name, True, False, CPU)
    return log_of(tmp_path / name)


def rewrite(folder: Path, write: Callable[[np.ndarray], Image.Image]) -> None:
    for path in folder.glob("*.png"):
        write(np.asarray(Image.open(path)) > 0).save(path)


def palette(mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0])
    return image


@pytest.mark.parametrize(
    "write",
    [
        lambda mask: Image.fromarray(mask.astype(np.uint8)),
        lambda mask: Image.fromarray((mask * 38).astype(np.uint8)),
        lambda mask: Image.fromarray(mask.astype(np.uint16)),
        palette,
        lambda mask: Image.fromarray(np.where(mask[..., None], np.array([48, 112, 32], np.uint8), np.uint8(0))),
    ],
    ids=["ones", "class", "16bit", "palette", "colour"],
)
def test_masks_of_any_tool_train_the_same(tmp_path: Path, write: Callable[[np.ndarray], Image.Image]) -> None:
    expected = two_steps(tmp_path, "white")
    rewrite(tmp_path / "data" / "gt", write)
    assert two_steps(tmp_path, "other") == expected and "hq_miou" in expected[-1]


def test_an_image_owns_the_mask_of_its_whole_name(tmp_path: Path) -> None:
    expected = two_steps(tmp_path, "good")
    write_folder(tmp_path / "twins")
    names = ["cam__0", "cat", "cat__1", "dog", "dog__1", "dog__1__2"]
    for old, new in zip([f"toy_{i}" for i in range(6)], names, strict=True):
        for part in ("im", "gt"):
            (tmp_path / "twins" / part / f"{old}.png").rename(tmp_path / "twins" / part / f"{new}.png")
    assert two_steps(tmp_path, "twins-run", "twins") == expected
    (tmp_path / "twins" / "im" / "dog__1.png").unlink()
    items = find_sets(tmp_path / "twins", ["im:gt"])
    assert {i.name: [m.stem for m in i.masks] for i in items}["dog"] == ["dog", "dog__1"]


def test_two_files_for_one_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    image = tmp_path / "im" / "toy_1.png"
    image.with_suffix(".JPG").write_bytes(image.read_bytes())
    with pytest.raises(InputError, match=r"toy_1.JPG and toy_1.png: two images for the mask toy_1.png"):
        find_pairs(tmp_path / "im", tmp_path / "gt")
    image.with_suffix(".JPG").unlink()
    (tmp_path / "gt" / "toy_1.tif").write_bytes(b"")
    with pytest.raises(InputError, match=r"toy_1.png and toy_1.tif: two masks of one name"):
        find_pairs(tmp_path / "im", tmp_path / "gt")


def test_what_leads_to_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path)
    (tmp_path / "gt" / "toy_1.png").rename(tmp_path / "gt" / "toy_1_mask.png")
    (tmp_path / "im" / "phone.HEIC").touch()
    (tmp_path / "im" / "._toy_0.png").touch()
    (tmp_path / "gt" / ".ipynb_checkpoints").mkdir()
    assert len(find_pairs(tmp_path / "im", tmp_path / "gt")) == 5
    text = caplog.text
    assert "1 of 6 images have no mask in" in text and "expected toy_1.png" in text
    assert "1 masks belong to no image and are left out: toy_1_mask.png" in text
    assert "1 files are not images of a supported kind and are left out: phone.HEIC" in text
    for path in (tmp_path / "gt").glob("toy_?.png"):
        path.rename(path.with_name(f"{path.stem}.jpg.png"))
    with pytest.raises(
        InputError, match=r"gt: no mask for any of the 6 images .*expected toy_0.png .*there is toy_0.jpg.png"
    ):
        find_pairs(tmp_path / "im", tmp_path / "gt")
    with pytest.raises(InputError, match="no images"):
        find_pairs(tmp_path / "gt" / ".ipynb_checkpoints", tmp_path / "gt")


def test_sources_without_weight_and_clips_without_masks_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from vidseg.training.recipe import SceneData

    write_folder(tmp_path / "train")
    (tmp_path / "train" / "im").rename(tmp_path / "train" / "images")
    (tmp_path / "train" / "gt").rename(tmp_path / "train" / "masks")
    find_items(SceneData(root=tmp_path, weights={"tyo": 1.0}, held_out=0))
    assert "left out: toy (6 images)" in caplog.text and "no image of tyo" in caplog.text
    for part in ("frames", "masks"):
        (tmp_path / "clips" / "cow" / part).mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "clips" / "cow" / "frames" / "0.JPG")
    assert find_clips(tmp_path / "clips", lambda name: True, 1) == []
    assert "1 of 1 frames have no mask" in caplog.text


def spoil_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])


def spoil_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("part", "spoil", "message"),
    [
        ("im", spoil_end, "im/toy_3.png: damaged image"),
        ("im", lambda p: p.write_bytes(b""), "im/toy_3.png: not an image"),
        ("gt", lambda p: p.write_bytes(b""), "gt/toy_3.png: not an image"),
        ("gt", spoil_end, "gt/toy_3.png: not a readable image"),
        (
            "gt",
            lambda p: cv2.imwrite(str(p), np.zeros((9, 12), np.uint8)),
            "gt/toy_3.png: mask is 12x9, its image 64x48",
        ),
        ("gt", lambda p: cv2.imwrite(str(p), np.zeros((64, 48), np.uint8)), "mask is 48x64.*sides are swapped"),
    ],
    ids=["cut", "empty", "empty-mask", "cut-mask", "size", "turned"],
)
def test_a_bad_file_is_found_before_the_first_step(
    tmp_path: Path, part: str, spoil: Callable[[Path], object], message: str
) -> None:
    recipe = hq_recipe(tmp_path)
    spoil(tmp_path / "data" / part / "toy_3.png")
    with pytest.raises(InputError, match=message):
        train(recipe, tmp_path / "run", True, False, CPU)
    assert log_of(tmp_path / "run") == []


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp", ".tif"])
def test_images_of_every_format_that_were_cut_off_are_found(tmp_path: Path, suffix: str) -> None:
    write_folder(tmp_path, 2)
    for path in (tmp_path / "im").glob("*.png"):
        Image.open(path).save(path.with_suffix(suffix))
        path.unlink()
    items = find_pairs(tmp_path / "im", tmp_path / "gt")
    check_items(items)
    spoil_end(items[1].image)
    with pytest.raises(InputError, match=f"toy_1{suffix}"):
        check_items(items)


def test_images_that_are_measured_on_are_decoded_before_the_first_step(tmp_path: Path) -> None:
    recipe = hq_recipe(tmp_path)
    write_folder(tmp_path / "data" / "val")
    spoil_middle(tmp_path / "data" / "val" / "im" / "toy_0.png")
    sets = FolderData(root=tmp_path / "data", sets=("im:gt",), validation=("val/im:val/gt",))
    with pytest.raises(InputError, match=r"val/im/toy_0.png: damaged image"):
        train(replace(recipe, folders=sets), tmp_path / "run", True, False, CPU)


def test_damage_inside_a_file_does_not_end_a_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = hq_recipe(tmp_path)
    recipe = replace(recipe, folders=replace(recipe.folders, validation=()))  # type: ignore[type-var]
    spoil_middle(tmp_path / "data" / "im" / "toy_3.png")
    with pytest.raises(PartialError, match=r"1 of 6 images were replaced \(.*toy_3.png.*done: .*sam_hq.pth"):
        train(recipe, tmp_path / "run", True, False, CPU)
    assert log_of(tmp_path / "run")[-1]["step"] == 6 and read_weights(tmp_path / "run" / "sam_hq.pth").tensors
    assert caplog.text.count("toy_3.png") == 1


def test_a_set_without_any_foreground_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path)
    for i in range(6):
        cv2.imwrite(str(tmp_path / "gt" / f"toy_{i}.png"), np.zeros((48, 64), np.uint8))
        if i == 4:
            check_items(find_sets(tmp_path, ["im:gt"]))
            assert "5 of 6 masks of 'im:gt' that were looked at are empty" in caplog.text
    with pytest.raises(InputError, match=r"toy_0.png: no foreground, nor in any other of the 6 masks of 'im:gt'"):
        check_items(find_sets(tmp_path, ["im:gt"]))


def test_images_are_turned_as_everywhere_else(tmp_path: Path) -> None:
    write_folder(tmp_path, 1)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.open(tmp_path / "im" / "toy_0.png").copy()
    upright.save(tmp_path / "im" / "toy_0.png", exif=exif)
    mask = np.rot90(np.asarray(Image.open(tmp_path / "gt" / "toy_0.png")), -1)
    Image.fromarray(mask).save(tmp_path / "gt" / "toy_0.png")
    items = find_pairs(tmp_path / "im", tmp_path / "gt")
    check_items(items)
    sample = load(items[0])
    assert (sample.image == np.rot90(np.asarray(upright), -1)).all() and (sample.masks[0] == mask).all()


def test_cut_outs_need_transparency(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a.png: a cut-out needs transparency"):
        load_cutout(tmp_path / "a.png", 320)


# --- checkpoints ---------------------------------------------------------------------------------------------------


def stopped(tmp_path: Path) -> Recipe:
    recipe = hq_recipe(tmp_path, unit="step", loop=LoopConfig(steps=6, lr=1e-3, stop=3, save_every=1))
    train(recipe, tmp_path / "run", True, False, CPU)
    return replace(recipe, loop=replace(recipe.loop, stop=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, _: replace(r, loop=replace(r.loop, lr=0.5)), r"made differently: loop.lr 0.001, now 0.5"),
        (lambda r, _: replace(r, images_per_batch=3), "images_per_batch 2, now 3"),
        (lambda r, _: replace(r, loop=replace(r.loop, ema=0.9)), "loop.ema 0.0, now 0.9"),
        (
            lambda r, root: replace(r, folders=replace(r.folders, root=root / "other")),
            r"data 6 images \(.*, now 4 images",
        ),
        (lambda r, root: replace(r, start=root / "changed.pth"), "start [0-9a-f]{64}, now"),
        (lambda r, root: replace(r, folders=replace(r.folders, root=root / "moved")), None),
        (lambda r, _: replace(r, threads=1, loop=replace(r.loop, save_every=5, log_every=1, steps=7)), None),
    ],
    ids=["rate", "batch", "average", "data", "start", "moved", "allowed"],
)
def test_only_the_same_recipe_is_resumed(
    tmp_path: Path, change: Callable[[Recipe, Path], Recipe], message: str | None
) -> None:
    recipe = stopped(tmp_path)
    write_folder(tmp_path / "other", 4)
    write_folder(tmp_path / "moved")
    tensors = read_weights(tmp_path / "sam.pth").tensors
    torch.save({k: v + 1 for k, v in tensors.items()}, tmp_path / "changed.pth")
    changed = change(recipe, tmp_path)
    if message is None:
        train(changed, tmp_path / "run", True, True, CPU)
        assert log_of(tmp_path / "run")[-2]["step"] == changed.loop.steps
    else:
        with pytest.raises(UsageError, match=message):
            train(changed, tmp_path / "run", True, True, CPU)


@pytest.mark.parametrize("size", [0, 20000, -1])
def test_a_damaged_checkpoint_is_a_matter_of_the_weights(tmp_path: Path, size: int) -> None:
    recipe, path = stopped(tmp_path), tmp_path / "run" / "last.pt"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(WeightsError, match=r"last.pt \(.* bytes\).*damaged.*run/sam_hq.pth: name them as 'start'"):
        train(recipe, tmp_path / "run", True, True, CPU)


def test_another_file_is_no_checkpoint(tmp_path: Path) -> None:
    recipe, path = stopped(tmp_path), tmp_path / "run" / "last.pt"
    content = read_checkpoint(path)
    others: list[object] = [read_weights(tmp_path / "sam.pth").tensors, [1], {**content, "optimizer": {}}]
    others += [{**content, "model": {k: v[..., :1] for k, v in content["model"].items()}}, {**content, "step": "x"}]
    for other in others:
        torch.save(other, path)
        with pytest.raises(WeightsError, match=r"last.pt.*(not a checkpoint|instead of a checkpoint|another network)"):
            train(recipe, tmp_path / "run", True, True, CPU)


def test_a_checkpoint_of_an_older_version_goes_on_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe, path = stopped(tmp_path), tmp_path / "run" / "last.pt"
    content = read_checkpoint(path)
    del content["recipe"]
    torch.save(content, path)
    train(recipe, tmp_path / "run", True, True, CPU)
    assert "does not say how it was made" in caplog.text


def test_an_interrupted_training_keeps_its_steps(tmp_path: Path) -> None:
    config = LoopConfig(steps=9, lr=0.1, save_every=100, log_every=1)
    torch.manual_seed(0)
    model = Line()
    loop = Loop(model, model.loss, config, tmp_path)

    def interrupted(draw: BatchRandomness) -> dict[str, torch.Tensor]:
        if draw.batch == 5:
            raise KeyboardInterrupt
        return model.loss(draw)

    loop.loss = interrupted
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "loss": 1}\\n{"step": 7, "lo')  # of a process that died after its last checkpoint
    again = Loop(model, model.loss, config, tmp_path)
    again.resume()
    assert again.step == 5
    again.run()
    assert [record["step"] for record in log_of(tmp_path)] == list(range(1, 10))


def test_an_average_that_is_switched_on_begins_with_the_trained_weights(tmp_path: Path) -> None:
    model = Line()
    Loop(model, model.loss, LoopConfig(steps=3, lr=0.1), tmp_path).run()
    trained = model.w.weight.detach().clone()
    loop = Loop(Line(), lambda _: {}, LoopConfig(steps=6, lr=0.1, ema=0.9), tmp_path)
    loop.resume()
    assert torch.equal(loop.average["w.weight"], trained)


def test_training_starts_from_what_a_model_can_be(tmp_path: Path) -> None:
    tensors = {}
    for line in vectors("hugging_face_mini")["keys"]:
        key, shape = str(line).split("\t")
        rule = "positional_encoding_gaussian_matrix" if "positional_embedding" in key else key
        tensors[key] = rule_tensor(rule, tuple(map(int, shape.split("x"))))
    save_file(tensors, tmp_path / "model.safetensors")
    sam = load_sam(tmp_path / "model.safetensors")
    save_sam(sam, tmp_path / "official.pth")
    official = read_weights(tmp_path / "official.pth").tensors
    torch.save({**official, "pixel_mean": torch.zeros(3, 1, 1)}, tmp_path / "pixel.pth")
    torch.save({"model_state_dict": {f"_orig_mod.{k}": v for k, v in official.items()}}, tmp_path / "wrapped.pth")
    recipe = hq_recipe(tmp_path, network=sam.config)
    for name in ("model.safetensors", "official.pth", "pixel.pth", "wrapped.pth"):
        state = start(replace(recipe, start=tmp_path / name), sam.config).state_dict()
        assert all(torch.equal(state[k], v) for k, v in official.items())
    embedded = load_sam("compact")
    state = start(replace(recipe, start=Path("compact")), embedded.config).state_dict()
    expected = {k: v for k, v in embedded.state_dict().items() if not k.startswith("objectness.")}
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[k], v) for k, v in expected.items())


def test_a_training_overwrites_neither_its_start_nor_another_training(tmp_path: Path) -> None:
    recipe = hq_recipe(tmp_path)
    (tmp_path / "sam.pth").rename(tmp_path / "sam_hq.pth")
    with pytest.raises(UsageError, match=r"start .*sam_hq.pth would be replaced"):
        train(replace(recipe, start=tmp_path / "sam_hq.pth"), tmp_path, True, False, CPU)
    with (
        file_lock(tmp_path / "train.lock"),
        pytest.raises(VidsegError, match="another training run is writing to it"),
        training_in(tmp_path),
    ):
        pass
