"""Objects by their names: the networks, what a text is, and runs of ``--text``."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
import torch

import vidseg_pipelines.build as build_module
from media import write_video
from toys import KeepMasks, frames, tiny_sam
from vidseg import registry
from vidseg.config import RunConfig
from vidseg.errors import UsageError, WeightsError
from vidseg.outputs import read_journal
from vidseg.types import Frame, Prompt, Proposal
from vidseg_pipelines.cli import main
from vidseg_pipelines.discovery import new_prompts
from vidseg_pipelines.drawing import draw_object
from vidseg_pipelines.object_finder import ObjectFinder
from vidseg_trackers.open_vocabulary.detect import TextDetector, build
from vidseg_trackers.open_vocabulary.networks import Found, name_boxes
from vidseg_trackers.open_vocabulary.options import TextOptions

HEIGHT, WIDTH = 48, 64
IMAGE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
SQUARE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
CPU = torch.device("cpu")


def made(**options: object) -> TextDetector:
    return build(options, device=CPU, dtype=torch.float32, offline=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("transformers")
    from tiny_detectors import grounding_dino, owl

    place = tmp_path_factory.mktemp("detectors")
    return {make.__name__: make(place / make.__name__) for make in (grounding_dino, owl)}


@pytest.mark.parametrize("kind", ["grounding_dino", "owl"])
def test_a_model_in_a_local_folder_gives_boxes_of_the_phrases_in_pixels(folders: dict[str, Path], kind: str) -> None:
    limits = {"box_threshold": 0.0} | ({"text_threshold": 0.0} if kind == "grounding_dino" else {})
    detector = made(text="Person. red car", model=str(folders[kind]), **limits)
    found = detector.detect(Frame(0, 0, 0.0, SQUARE))
    assert found
    assert {one.label for one in found} <= {"Person", "red car"}
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        assert one.mask is None and one.box is not None
        x1, y1, x2, y2 = one.box
        assert 0 <= x1 < x2 <= 64 and 0 <= y1 < y2 <= 64
    assert made(text="person", model=str(folders[kind]), box_threshold=1.0).detect(Frame(0, 0, 0.0, SQUARE)) == []


@pytest.mark.parametrize("kind", ["grounding_dino", "owl"])
def test_boxes_and_scores_are_those_of_transformers_own_steps(folders: dict[str, Path], kind: str) -> None:
    network = made(text="person. red car", model=str(folders[kind])).network
    found = network.find(IMAGE)
    pixels = network.prepare(images=IMAGE, return_tensors="pt")
    with torch.inference_mode():
        answer = network.model(**pixels, **network.tokens)
    sizes = {"threshold": 0.0, "target_sizes": [(HEIGHT, WIDTH)]}
    if kind == "owl":
        (own,) = network.prepare.post_process_object_detection(answer, **sizes)
        assert np.array_equal(found.phrases, own["labels"].numpy())
        assert np.allclose(found.scores, own["scores"].numpy())
    else:
        from transformers import AutoTokenizer, GroundingDinoProcessor

        whole = GroundingDinoProcessor(network.prepare, AutoTokenizer.from_pretrained(folders[kind]))
        ids = network.tokens["input_ids"]
        (own,) = whole.post_process_grounded_object_detection(answer, ids, text_threshold=0.0, **sizes)
    assert np.allclose(found.boxes, own["boxes"].numpy(), atol=1e-3)


def test_a_box_gets_the_phrase_whose_words_fit_best_on_the_whole() -> None:
    members = torch.tensor([[0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0]]).bool()  # "person. red car." between the ends
    scores = torch.tensor(
        [
            [0.9, 0.5, 0.9, 0.1, 0.6, 0.9],  # the best word is "car", but "red" does not fit
            [0.0, 0.1, 0.0, 0.5, 0.5, 0.0],
            [0.9, 0.2, 0.9, 0.2, 0.1, 0.9],  # no word fits
        ]
    )
    assert name_boxes(scores, members, 0.25).tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("person. red car", ("person", "red car")),
        (" Person ,  red\tcar.\nperson.", ("Person", "red car", "person")),
        ("dog.dog. dog ..", ("dog",)),
        ("人。赤い車", ("人", "赤い車")),
    ],
)
def test_phrases_end_at_full_stops_commas_and_lines(text: str, phrases: tuple[str, ...]) -> None:
    assert TextOptions(text).phrases == phrases


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": ""}, "nothing to look for"),
        ({"text": " . , "}, "nothing to look for"),
        ({}, "what is to be found"),
        ({"text": "cat", "box_threshold": 1.5}, "box_threshold = 1.5: 0 to 1"),
        ({"text": "cat", "box_treshold": 0.5}, "did you mean 'box_threshold'"),
        ({"text": "cat", "model": " "}, "model is empty"),
    ],
)
def test_wrong_settings_are_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        made(**options)
    assert "\n" not in str(caught.value)


def test_settings_that_do_not_fit_each_other_are_refused_before_anything_is_loaded() -> None:
    for config, message in (
        (RunConfig("x.mp4", text="cat", detect_with="mask2former"), "--text needs --detect-with text"),
        (RunConfig("x.mp4", detector_option=("model=x",)), "needs --detect-with or --text"),
    ):
        with pytest.raises(UsageError, match=message):
            config.check()
    assert RunConfig("x.mp4", text="cat").detector == "text"


def test_a_text_that_the_model_cannot_read_whole_is_one_line(folders: dict[str, Path]) -> None:
    for kind, text in (("grounding_dino", "person of a red car " * 3), ("owl", "red " * 8)):
        with pytest.raises(UsageError, match=r"tokens are more than the \d+ that the model reads"):
            made(text=text, model=str(folders[kind]))
    with pytest.raises(UsageError, match="text_threshold is for Grounding DINO"):
        made(text="car", model=str(folders["owl"]), text_threshold=0.2)


def test_folders_that_are_no_such_model_are_one_line(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    good = folders["owl"]
    kinds = {"empty": {}, "other": {"config.json": b'{"model_type": "bert"}'}, "wild": {"config.json": b"[" * 9999}}
    whole = {path.name: path.read_bytes() for path in good.iterdir()}
    kinds["truncated"] = whole | {"model.safetensors": whole["model.safetensors"][:-100]}
    kinds["larger"] = whole | {
        "config.json": whole["config.json"].replace(b'"projection_dim": 16', b'"projection_dim": 8')
    }
    kinds["pickled"] = {n: b for n, b in whole.items() if n != "model.safetensors"} | {
        "pytorch_model.bin": b"\x80\x02."
    }
    kinds["without a tokenizer"] = {n: b for n, b in whole.items() if "token" not in n}
    for kind, files in kinds.items():
        folder = tmp_path / kind
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        with pytest.raises(WeightsError) as caught:
            made(text="car", model=str(folder))
        assert str(folder) in str(caught.value), kind
        assert "\n" not in str(caught.value), kind
    for name, message in (
        (str(tmp_path / "nowhere"), "no such folder"),
        ("nobody/nothing-here", "--offline fetches nothing"),
    ):
        with pytest.raises(WeightsError, match=message):
            made(text="car", model=name)


def test_without_transformers_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'vidseg\[hf\]'"):
        made(text="car")


def square(x: int, y: int, side: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def test_a_box_of_a_followed_object_with_its_phrase_is_recognised_without_being_drawn() -> None:
    drawn: list[tuple[float, ...]] = []

    def draw(box: tuple[float, float, float, float]) -> np.ndarray:
        drawn.append(box)
        x1, y1, x2, _ = (int(v) for v in box)
        return square(x1, y1, x2 - x1)

    def found(label: str, *box: float) -> Proposal:
        return Proposal(None, 0.9, label, box=box)  # type: ignore[arg-type]

    seen = [
        found("car", 3, 2, 23, 22),  # the followed one, a little further
        found("car", 40, 10, 50, 20),
        found("car", 41, 10, 51, 20),  # the same once more
        found("dog", 5, 5, 10, 10),  # inside of the followed one's mask
    ]
    prompts = new_prompts(seen, 3, first_id=7, known=[(square(2, 2, 20), "car")], max_objects=5, draw=draw)
    assert [(p.object_id, label) for p, label in prompts] == [(7, "car")]
    assert drawn == [(40, 10, 50, 20), (5, 5, 10, 10)]


def test_the_box_of_a_new_object_is_drawn_by_hq_sam() -> None:
    sam, frame = tiny_sam(), Frame(0, 0, 0.0, IMAGE)

    class Sees:
        def detect(self, frame: Frame) -> list[Proposal]:
            return [Proposal(None, 0.9, "car", box=CAR[:4])]

    encoded = sam.encode([IMAGE])[0]
    ((prompt, _),) = ObjectFinder(sam, detector=Sees(), zoom="never").find(frame, lambda: encoded, {})
    expected = draw_object(sam, IMAGE, encoded, Prompt(0, 1, box=CAR[:4]), "never").mask
    assert 0 < expected.sum() < expected.size
    assert np.array_equal(prompt.mask, expected)


class SeesPhrases:
    """A network whose answers are given by the number of the call."""

    box_threshold = 0.3

    def __init__(self, *calls: list[tuple[float, float, float, float, float, int]]) -> None:
        self.calls, self.count = calls, 0

    def find(self, image: np.ndarray) -> Found:
        rows = np.array(self.calls[min(self.count, len(self.calls) - 1)], np.float32).reshape(-1, 6)
        self.count += 1
        return Found(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64))


PERSON, CAR = (4, 4, 20, 30, 0.9, 0), (36, 10, 60, 40, 0.8, 1)


def run_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: SeesPhrases, *flags: str) -> int:
    entry = EntryPoint("text", "vidseg_trackers.open_vocabulary.detect:build", "vidseg.detectors")
    installed = registry._declared
    monkeypatch.setattr(
        registry, "_declared", lambda kind: EntryPoints([entry]) if kind == "detector" else installed(kind)
    )
    monkeypatch.setattr("vidseg_trackers.open_vocabulary.detect.load_network", lambda *a, **k: network)
    monkeypatch.setattr(build_module, "load_sam", lambda *a, **k: tiny_sam())
    monkeypatch.setattr(build_module, "build_tracker", lambda *a, **k: KeepMasks())
    monkeypatch.setattr(
        "vidseg_pipelines.object_finder.draw_object",
        lambda sam, image, features, prompt, zoom: type("Drawn", (), {"mask": boxed(prompt.box)}),
    )
    video = write_video(tmp_path / "clip.mp4", [f.rgb for f in frames(6, HEIGHT, WIDTH)])
    return main(["run", str(video), "--output", str(tmp_path / "out"), "--refine", "none", "--save", "none", *flags])


def boxed(box: tuple[float, float, float, float]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    x1, y1, x2, y2 = (int(v) for v in box)
    mask[y1:y2, x1:x2] = True
    return mask


def test_a_run_draws_follows_and_labels_what_the_phrases_name_and_new_objects_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = SeesPhrases([PERSON], [PERSON, CAR], [PERSON, CAR])
    assert run_text(tmp_path, monkeypatch, network, "--text", "person. red car", "--detect-every", "2") == 0
    results = list(read_journal(tmp_path / "out" / "masks.jsonl"))
    assert [r.ids for r in results] == [(1,)] * 2 + [(1, 2)] * 4
    assert results[-1].labels == ("person", "red car")
    assert network.count == 3
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["warnings"] == []
    assert manifest["weights"]["detector"]["name"] == "IDEA-Research/grounding-dino-tiny"


def test_a_text_that_finds_nothing_is_a_warning_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vidseg_pipelines.object_finder.RETRY_EVERY", 2)
    weak = (*CAR[:4], 0.2, 1)
    network = SeesPhrases([weak])
    assert run_text(tmp_path, monkeypatch, network, "--text", "person. red car") == 0
    assert network.count == 3
    said = capsys.readouterr().err
    assert said.count("--text 'person. red car' found nothing") == 1
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "done"
    network = SeesPhrases([weak], [CAR])
    assert run_text(tmp_path, monkeypatch, network, "--text", "person. red car", "--overwrite") == 0
    assert [r.ids for r in read_journal(tmp_path / "out" / "masks.jsonl")] == [()] * 2 + [(1,)] * 4
    assert "found nothing" not in capsys.readouterr().err


def test_a_text_is_looked_for_beside_the_objects_that_prompts_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = SeesPhrases([CAR])
    monkeypatch.setattr(
        "vidseg_pipelines.refiner.draw_prompts", lambda s, i, f, prompts, *a: [boxed(p.box) for p in prompts]
    )
    flags = ("--text", "person. red car", "--box", "3@4,4,20,30")
    assert run_text(tmp_path, monkeypatch, network, *flags) == 0
    assert [r.ids for r in read_journal(tmp_path / "out" / "masks.jsonl")] == [(3, 4)] * 6


def test_an_empty_text_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_text(tmp_path, monkeypatch, SeesPhrases([]), "--text", "") == 2
