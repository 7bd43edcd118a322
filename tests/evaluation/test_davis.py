"""J&F: the official numbers of both DAVIS tasks and of vos-benchmark, and every edge case of their definitions."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from eval_media import expected, save_labels, square, unpack
from vidseg.errors import InputError, UsageError
from vidseg.evaluation.contours import contour_map, contour_radius, region_and_contour
from vidseg.evaluation.davis import evaluate_davis, evaluate_sequence, statistics
from vidseg.evaluation.vos import evaluate_vos

SIZE = (40, 60)
BOX = square(SIZE, 10, 10, 12)


@pytest.fixture(scope="module")
def oracles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracles")
    for name in ("davis_semisup", "davis_unsup", "davis_long_sequence", "vos_benchmark", "boundary_ops"):
        unpack(name, folder)
    return folder


@pytest.mark.parametrize("workers", [1, 2])
def test_semi_supervised_equals_the_official_numbers(oracles: Path, workers: int) -> None:
    root = oracles / "davis_semisup"
    report = evaluate_davis(root / "gt", root / "pred", workers=workers)
    want = expected(root)
    assert report.summary() == pytest.approx(want["global"], abs=1e-9)
    got = {f"{s.name}_{s.objects[k]}": (j, f) for s, k, j, f in report.objects()}
    assert set(got) == set(want["per_object"])
    for name, (j, f) in got.items():
        for stats, numbers in ((j, want["per_object"][name]["J"]), (f, want["per_object"][name]["F"])):
            assert (stats.mean, stats.recall, stats.decay) == pytest.approx((*numbers.values(),), abs=1e-9), name
    for sequence in report.sequences:
        frames = want["per_frame"][sequence.name]
        assert list(sequence.frames) == frames["frames"]
        np.testing.assert_allclose(sequence.j, frames["J"], atol=1e-9)
        np.testing.assert_allclose(sequence.f, frames["F"], atol=1e-9)


def test_unsupervised_equals_the_official_numbers_and_names_the_objects_of_the_ground_truth(oracles: Path) -> None:
    root = oracles / "davis_unsup"
    report = evaluate_davis(root / "gt", root / "pred", "unsupervised")
    want = expected(root)
    assert report.summary() == pytest.approx(want["global"], abs=1e-9)
    for sequence in report.sequences:
        official = want["assignment"][sequence.name]
        rows = {gt: row for row, gt in enumerate(official["gt_index"])}  # official rows stand in the order of proposals
        for k in range(len(sequence.objects)):
            np.testing.assert_allclose(sequence.j[k], want["per_frame"][sequence.name]["J"][rows[k]], atol=1e-9)
            np.testing.assert_allclose(sequence.f[k], want["per_frame"][sequence.name]["F"][rows[k]], atol=1e-9)
            if sequence.proposals[k]:
                assert sequence.proposals[k] == official["proposal_index"][rows[k]] + 1
    fewer = next(s for s in report.sequences if s.name == "fewer-proposals")
    assert fewer.proposals == (0, 2, 1)  # no proposal was left for object 1


def test_decay_of_a_long_sequence_is_finite(oracles: Path, tmp_path: Path) -> None:
    import zipfile

    root = oracles / "davis_long_sequence"
    with zipfile.ZipFile(root / "inputs.zip") as file:
        file.extractall(tmp_path)
    summary = evaluate_davis(tmp_path / "gt", tmp_path / "pred").summary()
    want = expected(root)["global"]
    for key, value in want.items():
        if value is not None:
            assert summary[key] == pytest.approx(value, abs=1e-9)
    j = np.array(expected(root)["per_frame"]["long"]["J"][0])
    assert len(j) == 260
    assert summary["J-Decay"] == pytest.approx(j[:66].mean() - j[194:].mean(), abs=1e-12)


@pytest.mark.parametrize("skip", [True, False])
def test_vos_equals_the_public_numbers(oracles: Path, skip: bool) -> None:
    root = oracles / "davis_semisup"
    want = expected(oracles / "vos_benchmark")["skip_first_and_last" if skip else "all_frames"]
    report = evaluate_vos(root / "gt" / "Annotations" / "480p", root / "pred", skip_ends=skip, workers=1 + skip)
    assert report.summary() == pytest.approx({k: want[k] for k in ("J&F", "J", "F")}, abs=1e-9)
    got = {(one.sequence, str(one.id)): one.means() for one in report.objects}
    assert set(got) == {(s, k) for s, objects in want["per_object"].items() for k in objects}
    for (sequence, k), means in got.items():
        assert means == pytest.approx((*want["per_object"][sequence][k].values(),), abs=1e-9)


def test_contours_equal_the_official_ones(oracles: Path) -> None:
    arrays = np.load(oracles / "boundary_ops" / "arrays.npz")
    for name, case in expected(oracles / "boundary_ops")["cases"].items():
        a, b = arrays[f"{name}_a"], arrays[f"{name}_b"]
        for mask, side in ((a, "a"), (b, "b")):
            assert (contour_map(mask) == arrays[f"{name}_{side}_seg2bmap"]).all(), name
        assert contour_radius(*a.shape) == case["bound_pix"]
        assert region_and_contour(a, b) == pytest.approx((case["J"], case["F"]), abs=1e-9), name
        assert region_and_contour(a, b, 3)[1] == pytest.approx(case["F_bound_th_3px"], abs=1e-9), name


def _plain_f(truth: np.ndarray, guess: np.ndarray, radius: int) -> float:
    """The definition on whole frames, with distances instead of windows and dilation."""

    def contour(mask: np.ndarray) -> np.ndarray:
        out = np.zeros(mask.shape, bool)
        height, width = mask.shape
        for y in range(height):
            for x in range(width):
                for dy, dx in ((0, 1), (1, 0), (1, 1)):
                    inside = y + dy < height and x + dx < width
                    out[y, x] |= inside and mask[y, x] != mask[y + dy, x + dx]
        return out

    a, b = contour(truth), contour(guess)
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    far_a = cv2.distanceTransform((~a).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    far_b = cv2.distanceTransform((~b).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    p, r = (far_a[b] <= radius + 1e-3).mean(), (far_b[a] <= radius + 1e-3).mean()
    return 2 * p * r / (p + r) if p + r else 0.0


def test_windows_change_nothing() -> None:
    rng = np.random.default_rng(5)
    for _ in range(40):
        masks = []
        for _ in range(2):
            mask = np.zeros((31, 44), bool)
            y, x = rng.integers(-5, 30), rng.integers(-5, 40)
            mask[max(0, y) : y + rng.integers(1, 25), max(0, x) : x + rng.integers(1, 30)] = True
            masks.append(mask & (rng.random(mask.shape) < rng.choice([0.7, 1.0])))
        tolerance = float(rng.choice([0.008, 0.04, 0.1]))
        union = (masks[0] | masks[1]).sum()
        j = (masks[0] & masks[1]).sum() / union if union else 1.0
        wanted = (j, _plain_f(*masks, contour_radius(31, 44, tolerance)))
        assert region_and_contour(*masks, tolerance) == pytest.approx(wanted, abs=1e-12)


def test_frames_and_emptiness() -> None:
    nothing, full = np.zeros(SIZE, bool), np.ones(SIZE, bool)
    assert region_and_contour(nothing, nothing) == (1, 1)
    assert region_and_contour(BOX, nothing) == (0, 0)
    assert region_and_contour(nothing, BOX) == (0, 0)
    assert region_and_contour(full, nothing) == (0, 1)  # a mask that fills the frame has no contour
    cut = np.zeros(SIZE, bool)
    cut[:, :20] = True
    assert set(zip(*np.nonzero(contour_map(cut)), strict=True)) == {(y, 19) for y in range(SIZE[0])}
    corner = np.zeros(SIZE, bool)
    corner[-1, -1] = True
    assert np.argwhere(contour_map(corner)).tolist() == [[38, 58], [38, 59], [39, 58]]


def test_radius_of_the_davis_sizes() -> None:
    assert [contour_radius(480, width) for width in (854, 910, 1152)] == [8, 9, 10]
    assert contour_radius(300, 400) == 4  # exactly 4.0 is not rounded up
    assert contour_radius(10, 10, 1) == 1
    assert contour_radius(10, 10, 2.5) == 3


def test_statistics_of_few_frames() -> None:
    one = statistics(np.array([0.7]))
    assert (one.mean, one.recall, one.decay) == (0.7, 1.0, 0.0)
    assert statistics(np.array([0.5, 0.5])).recall == 0.0  # above 0.5, not at it
    assert statistics(np.array([1.0, 0.0])).decay == 1.0
    assert statistics(np.array([0.9, 0.5, 0.1])).decay == pytest.approx(0.7 - 0.1)
    five = np.array([1.0, 0.8, 0.5, 0.4, 0.1])
    assert statistics(five).decay == pytest.approx(0.9 - 0.25)


def _sequence(folder: Path, gt: list[np.ndarray], pred: list[np.ndarray], name: str = "s") -> tuple[Path, Path]:
    save_labels(folder / "gt" / name, gt)
    save_labels(folder / "pred" / name, pred)
    return folder / "gt", folder / "pred"


def test_objects_are_those_of_the_first_frame(tmp_path: Path) -> None:
    first = square(SIZE, 2, 2, 8, 1) + square(SIZE, 20, 20, 8, 3)  # id 2 is a gap and counts
    later = first + square(SIZE, 30, 2, 8, 4)  # id 4 comes later and does not
    gt, pred = _sequence(tmp_path, [first, later, later], [first] * 3)
    scores = evaluate_sequence(gt / "s", pred / "s")
    assert scores.objects == (1, 2, 3)
    assert scores.j.tolist() == [[1], [1], [1]]
    assert scores.frames == ("00001",)


def test_only_evaluated_frames_are_read(tmp_path: Path) -> None:
    bad = square(SIZE, 0, 0, 5, 9)
    gt, pred = _sequence(tmp_path, [BOX] * 4, [bad, BOX, BOX, bad])
    assert evaluate_davis(gt, pred).summary()["J&F-Mean"] == 1
    for name in ("00000.png", "00003.png"):
        (pred / "s" / name).unlink()
    assert evaluate_davis(gt, pred).summary()["J&F-Mean"] == 1


def test_means_are_over_objects(tmp_path: Path) -> None:
    two = BOX + square(SIZE, 25, 40, 8, 2)
    _sequence(tmp_path, [two] * 3, [two] * 3, "a")
    gt, pred = _sequence(tmp_path, [BOX] * 9, [np.zeros(SIZE)] * 9, "b")
    summary = evaluate_davis(gt, pred).summary()
    assert summary["J-Mean"] == pytest.approx(2 / 3)
    assert summary["J-Decay"] == 0


def test_void_of_the_two_tasks(tmp_path: Path) -> None:
    void = BOX.copy()
    void[10:22, 22:30] = 255
    wide = BOX.copy()
    wide[10:22, 22:30] = 1
    gt, pred = _sequence(tmp_path, [BOX, void, void], [wide] * 3)
    semi = evaluate_sequence(gt / "s", pred / "s")
    assert semi.j[0, 0] == pytest.approx(144 / 240)  # background: predictions there count against you
    free = evaluate_sequence(gt / "s", pred / "s", "unsupervised")
    assert free.j[0].tolist() == pytest.approx([144 / 240, 1, 1])
    assert free.f[0, 1:].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("task", "value", "limit"),
    [("semi-supervised", 2, "up to 1"), ("semi-supervised", 255, "up to 1"), ("unsupervised", 21, "20")],
)
def test_ids_beyond_the_allowed_ones(tmp_path: Path, task: str, value: int, limit: str) -> None:
    gt, pred = _sequence(tmp_path, [BOX] * 3, [BOX, square(SIZE, 1, 1, 3, value), BOX])
    with pytest.raises(InputError, match=rf"00001\.png: object id {value}: .*{limit}"):
        evaluate_davis(gt, pred, task)


def test_twenty_proposals_are_allowed_and_surplus_ones_cost_nothing(tmp_path: Path) -> None:
    guess = square(SIZE, 0, 0, 1, 20)
    guess[BOX > 0] = 7
    gt, pred = _sequence(tmp_path, [BOX] * 3, [guess] * 3)
    scores = evaluate_sequence(gt / "s", pred / "s", "unsupervised")
    assert scores.proposals == (7,)
    assert scores.j.tolist() == [[1, 1, 1]]


def test_layouts(tmp_path: Path) -> None:
    save_labels(tmp_path / "plain" / "s" / "masks", [BOX] * 3)
    save_labels(tmp_path / "davis" / "Annotations" / "480p" / "s", [BOX] * 3)
    save_labels(tmp_path / "davis" / "Annotations" / "480p" / "not-in-split", [BOX] * 3)
    (tmp_path / "davis" / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "davis" / "ImageSets" / "2017" / "val.txt").write_text("s\n\n")
    save_labels(tmp_path / "pred" / "s", [BOX] * 5)
    save_labels(tmp_path / "pred" / "extra", [BOX])
    plain = evaluate_davis(tmp_path / "plain", tmp_path / "pred")
    davis = evaluate_davis(tmp_path / "davis", tmp_path / "pred")
    assert plain.summary() == davis.summary()
    assert "plain" in str(plain.protocol()["ground truth"])
    assert "ImageSets/2017/val.txt" in str(davis.protocol()["ground truth"])
    assert any("extra" in note for note in davis.notes)
    assert any("2 predicted frames" in note for note in davis.notes)
    with pytest.raises(UsageError, match=r"unknown split 'vall' \(did you mean 'val'\?\)"):
        evaluate_davis(tmp_path / "davis", tmp_path / "pred", split="vall")
    with pytest.raises(InputError, match="Annotations_unsupervised"):
        evaluate_davis(tmp_path / "davis", tmp_path / "pred", "unsupervised")


def test_what_is_missing_is_named_before_anything_is_computed(tmp_path: Path) -> None:
    _sequence(tmp_path, [BOX] * 4, [BOX] * 4, "a")
    gt, pred = _sequence(tmp_path, [BOX] * 4, [BOX] * 4, "b")
    (pred / "a" / "00001.png").write_bytes(b"damaged")
    (pred / "b" / "00002.png").unlink()
    with pytest.raises(InputError, match=r"b: 1 of 2 evaluated frames have no prediction: 00002\.png"):
        evaluate_davis(gt, pred)
    save_labels(pred / "b", [BOX] * 4)
    with pytest.raises(InputError, match=r"00001\.png: not a readable image"):
        evaluate_davis(gt, pred)
    for file in pred.glob("b/*"):
        file.unlink()
    (pred / "b").rmdir()
    with pytest.raises(InputError, match="1 of 2 sequences have no folder of predictions: b"):
        evaluate_davis(gt, pred)
    with pytest.raises(InputError, match="no such folder of predictions"):
        evaluate_davis(gt, pred / "nowhere")
    with pytest.raises(InputError, match="no such folder of ground truth"):
        evaluate_davis(gt / "nowhere", pred)


def test_wrong_images(tmp_path: Path) -> None:
    gt, pred = _sequence(tmp_path, [BOX] * 3, [BOX, BOX[:-1], BOX])
    with pytest.raises(InputError, match="60x39 pixels, but its ground truth has 60x40"):
        evaluate_davis(gt, pred)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(pred / "s" / "00001.png")
    with pytest.raises(InputError, match="colour mode RGB"):
        evaluate_davis(gt, pred)
    Image.fromarray(BOX, "L").save(pred / "s" / "00001.png")
    assert evaluate_davis(gt, pred).summary()["J&F-Mean"] == 1


def test_errors_of_other_processes_arrive(tmp_path: Path) -> None:
    _sequence(tmp_path, [BOX] * 3, [BOX] * 3, "a")
    gt, pred = _sequence(tmp_path, [BOX] * 3, [BOX * 2] * 3, "b")
    with pytest.raises(InputError, match="object id 2"):
        evaluate_davis(gt, pred, workers=2)
    with pytest.raises(UsageError, match="workers 0"):
        evaluate_davis(gt, pred, workers=0)


def test_nothing_to_evaluate(tmp_path: Path) -> None:
    gt, pred = _sequence(tmp_path, [BOX] * 2, [BOX] * 2, "short")
    with pytest.raises(InputError, match="2 frames, and none is left"):
        evaluate_davis(gt, pred)
    assert evaluate_davis(gt, pred, "unsupervised").summary()["J-Mean"] == 1
    gt, pred = _sequence(tmp_path / "other", [np.where(BOX, 255, 0)] * 3, [np.zeros(SIZE)] * 3)
    with pytest.raises(InputError, match="no object in the first frame of any sequence"):
        evaluate_davis(gt, pred)


def test_vos_objects_count_from_where_they_are_seen(tmp_path: Path) -> None:
    none = np.zeros(SIZE)
    late = [none, none, none, BOX, BOX, BOX]
    gt, pred = _sequence(tmp_path, late, late)
    (one,) = evaluate_vos(gt, pred).objects
    assert one.frames == ("00003", "00004")  # the empty frames before it give nothing
    (one,) = evaluate_vos(gt, _sequence(tmp_path / "b", late, [none, BOX, none, BOX, BOX, none])[1]).objects
    assert one.j == (0, 1, 1, 1)  # predicted from the first evaluated frame on, so that it counts from there


def test_vos_ignores_surplus_ids_and_scores_255(tmp_path: Path) -> None:
    truth = BOX + square(SIZE, 30, 30, 5, 255)
    guess = BOX + square(SIZE, 30, 2, 5, 9)
    gt, pred = _sequence(tmp_path, [truth] * 3, [guess] * 3)
    report = evaluate_vos(gt, pred)
    assert [(one.id, one.means()) for one in report.objects] == [(1, (100.0, 100.0)), (255, (0.0, 0.0))]


def test_vos_with_sparse_ground_truth(tmp_path: Path) -> None:
    for t in (0, 5, 10, 15):
        save_labels(tmp_path / "gt" / "s", [BOX], t)
    save_labels(tmp_path / "pred" / "s", [BOX] * 16)
    report = evaluate_vos(tmp_path / "gt", tmp_path / "pred")
    assert report.objects[0].frames == ("00005", "00010")
    assert report.summary() == {"J&F": 100, "J": 100, "F": 100}
    (tmp_path / "pred" / "s" / "00005.png").unlink()
    with pytest.raises(InputError, match=r"00005\.png"):
        evaluate_vos(tmp_path / "gt", tmp_path / "pred")


def test_proposals_are_assigned_by_j_and_f_together(tmp_path: Path) -> None:
    """Proposal 1 has the better J, proposal 2 the better F and the better sum."""
    truth = square((100, 130), 30, 30, 40)
    comb = truth.copy()
    comb[22:30, 30:70:2] = 1  # teeth outside: little area, much contour
    moved = square((100, 130), 32, 31, 40, 2)
    gt, pred = _sequence(tmp_path, [truth] * 2, [comb, moved])
    (j1, f1), (j2, f2) = region_and_contour(truth, comb), region_and_contour(truth, moved)
    assert j1 > j2 and j1 + f1 < j2 + f2
    assert evaluate_sequence(gt / "s", pred / "s", "unsupervised").proposals == (2,)


def test_hidden_files_are_no_frames_and_no_sequences(tmp_path: Path) -> None:
    gt, pred = _sequence(tmp_path, [BOX] * 4, [BOX, BOX, BOX * 0, BOX])
    right = evaluate_davis(gt, pred).summary()
    for folder in (gt, pred):
        (folder / "s" / "._00000.png").write_bytes(b"a Mac was here")
        (folder / "s" / ".DS_Store").write_bytes(b"")
        save_labels(folder / ".ipynb_checkpoints", [BOX])
        save_labels(folder / "__MACOSX", [BOX])
    for evaluate in (evaluate_davis, evaluate_vos):
        report = evaluate(gt, pred)
        assert not report.notes
    assert evaluate_davis(gt, pred).summary() == right
    (gt / "s" / "masks").mkdir()
    (gt / "s" / "masks" / "._00000.png").write_bytes(b"a Mac was here")
    assert evaluate_davis(gt, pred).summary() == right


@pytest.mark.parametrize("where", ["gt", "pred", "both"])
def test_endings_have_any_case(tmp_path: Path, where: str) -> None:
    gt, pred = _sequence(tmp_path, [BOX] * 4, [BOX, BOX, BOX * 0, BOX])
    right = evaluate_davis(gt, pred).summary(), evaluate_vos(gt, pred).summary()
    for folder in {"gt": [gt], "pred": [pred], "both": [gt, pred]}[where]:
        for path in sorted((folder / "s").iterdir()):
            path.rename(path.with_suffix(".PNG"))
    assert (evaluate_davis(gt, pred).summary(), evaluate_vos(gt, pred).summary()) == right
    first = next((pred / "s").iterdir())
    (pred / "s" / f"{first.stem}.pNg").write_bytes(first.read_bytes())
    with pytest.raises(InputError, match="are files of the same frame"):
        evaluate_davis(gt, pred)


def test_ids_beyond_255_are_read_from_16_bits(tmp_path: Path) -> None:
    labels = np.zeros(SIZE, np.uint16)
    labels[5:15, 5:15], labels[20:30, 5:15], labels[5:15, 30:40] = 300, 255, 2
    for part in ("gt", "pred"):
        (tmp_path / part / "s").mkdir(parents=True)
        for t in range(3):
            guess = np.where(labels == 300, 0, labels).astype(np.uint16) if part == "pred" else labels
            Image.fromarray(guess).save(tmp_path / part / "s" / f"{t:05d}.png")
    scores = evaluate_sequence(tmp_path / "gt" / "s", tmp_path / "pred" / "s")
    assert scores.objects == tuple(range(1, 301))
    assert [scores.j[k - 1, 0] for k in (2, 255, 300)] == [1, 1, 0]
    for t in (1, 2):
        (tmp_path / "gt" / "s" / f"{t:05d}.png").unlink()
    Image.fromarray((labels == 255).astype(np.uint8)).save(tmp_path / "pred" / "s" / "00000.png")
    free = evaluate_sequence(tmp_path / "gt" / "s", tmp_path / "pred" / "s", "unsupervised")
    assert (free.proposals[254], free.j[254].tolist()) == (1, [1])  # 255 is no void here


def test_vos_counts_ids_beyond_255(tmp_path: Path) -> None:
    labels = np.zeros(SIZE, np.uint16)
    labels[5:15, 5:15], labels[20:30, 5:15], labels[5:15, 30:40] = 300, 255, 2
    for part, pixels in (("gt", labels), ("pred", np.where(labels == 300, 0, labels).astype(np.uint16))):
        (tmp_path / part / "s").mkdir(parents=True)
        for t in range(3):
            Image.fromarray(pixels).save(tmp_path / part / "s" / f"{t:05d}.png")
    report = evaluate_vos(tmp_path / "gt", tmp_path / "pred")
    assert {one.id: one.j for one in report.objects} == {2: (1.0,), 255: (1.0,), 300: (0.0,)}


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_no_message_holds_an_address_of_memory(tmp_path: Path, data: bytes) -> None:
    gt, pred = _sequence(tmp_path, [BOX] * 3, [BOX] * 3)
    (pred / "s" / "00001.png").write_bytes(data)
    with pytest.raises(InputError, match=r"00001\.png: not a readable image") as error:
        evaluate_davis(gt, pred)
    assert "0x" not in str(error.value)


@pytest.mark.parametrize("below", ["Annotations", "valid/Annotations"])
def test_an_official_root_is_found_and_named_and_one_sequence_is_not_taken_for_all(tmp_path: Path, below: str) -> None:
    gt, pred = _sequence(tmp_path, [BOX] * 3, [BOX] * 3)
    root = tmp_path / "root"
    (root / below).parent.mkdir(parents=True)
    gt.rename(root / below)
    report = evaluate_vos(root, pred)
    assert report.summary()["J&F"] == 100
    assert report.protocol()["ground truth"] == f"{below}, one folder per sequence"
    with pytest.raises(InputError, match=r"s is one sequence: name the folder of all sequences, .*Annotations"):
        evaluate_vos(root / below / "s", pred)
