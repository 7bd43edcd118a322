"""SA-1B as training data: folders of jpg and json with run-length codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from training_toys import CPU, hq_recipe
from vidseg.datasets.pairs import load
from vidseg.errors import InputError
from vidseg.masks.rle import encode
from vidseg.training.folders import find_sets
from vidseg.training.recipe import FolderData
from vidseg.training.trainer import train


def write_sa1b(root: Path, images: int = 4, masks: int = 3) -> None:
    for i in range(images):
        folder = root / "sa1b" / f"sa_{i % 2:06}"
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"sa_{i}.jpg"), np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8))
        rows = []
        for k in range(masks):
            mask = np.zeros((48, 64), bool)
            mask[4 : 20 + 5 * k, 6 : 30 + 8 * k] = True
            code = encode(mask)
            size = [code.height, code.width]
            rows.append(
                {"id": k, "segmentation": {"size": size, "counts": code.counts.decode()}, "area": int(mask.sum())}
            )
        about = {"image_id": i, "width": 64, "height": 48, "file_name": f"sa_{i}.jpg"}
        (folder / f"sa_{i}.json").write_text(json.dumps({"image": about, "annotations": rows}))


def test_every_image_has_one_of_its_masks_always_the_same(tmp_path: Path) -> None:
    write_sa1b(tmp_path, images=8)
    items = find_sets(tmp_path, ["sa1b"])
    assert [item.name for item in items] == ["sa_0", "sa_2", "sa_4", "sa_6", "sa_1", "sa_3", "sa_5", "sa_7"]
    samples = [load(item) for item in items]
    heights = [int((s.masks[0] > 128).any(1).sum()) for s in samples]
    assert all(len(s.masks) == 1 for s in samples) and set(heights) <= {16, 21, 26} and len(set(heights)) > 1
    assert np.array_equal(load(items[0]).masks[0], samples[0].masks[0])


def test_a_sample_is_drawn_by_the_seed(tmp_path: Path) -> None:
    write_sa1b(tmp_path, images=12)
    names = [[item.name for item in find_sets(tmp_path, ["sa1b"], 5, seed)] for seed in (0, 0, 1)]
    assert len(set(names[0])) == 5 and names[0] == names[1] != names[2]
    assert len(find_sets(tmp_path, ["sa1b"], 99)) == 12


def test_a_network_trains_on_it(tmp_path: Path) -> None:
    recipe = hq_recipe(tmp_path)
    write_sa1b(tmp_path / "data")
    data = FolderData(root=tmp_path / "data", sets=("sa1b",), sample=3)
    loop = replace(recipe.loop, validate_every=0)
    assert train(replace(recipe, folders=data, loop=loop), tmp_path / "run", True, False, CPU).is_file()
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 2  # one batch of two images an epoch


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not json"),
        ("[]", "no list of 'annotations'"),
        ('{"annotations": []}', "no list of 'annotations'"),
        ('{"annotations": [{"segmentation": [[1, 2]]}]}', "annotation 0: RLE"),
        ('{"annotations": [{"segmentation": {"size": [4, 4], "counts": [16]}}]}', "mask is 4x4, its image 64x48"),
    ],
)
def test_a_broken_json_is_named_before_the_first_step(text: str, complaint: str, tmp_path: Path) -> None:
    recipe = hq_recipe(tmp_path)
    write_sa1b(tmp_path / "data", masks=1)
    (tmp_path / "data" / "sa1b" / "sa_000001" / "sa_3.json").write_text(text)
    data = FolderData(root=tmp_path / "data", sets=("sa1b",))
    with pytest.raises(InputError, match=rf"sa_3\.json: .*{complaint}") as error:
        train(replace(recipe, folders=data), tmp_path / "run", True, False, CPU)
    assert "\n" not in str(error.value)


def test_a_folder_without_pairs_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sa1b: no such folder"):
        find_sets(tmp_path, ["sa1b"])
    (tmp_path / "sa1b").mkdir()
    with pytest.raises(InputError, match=r"NAME\.jpg with NAME\.json"):
        find_sets(tmp_path, ["sa1b"])
