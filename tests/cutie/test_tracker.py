"""The Cutie tracker: objects come, go and are corrected; bounded memory; states; files of weights and wrong ones."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cutie_rule import toy_cutie
from vidseg.errors import UsageError, WeightsError
from vidseg.types import Frame, Prompt, Tracks, VideoInfo
from vidseg_trackers.cutie import bucket
from vidseg_trackers.cutie.inference_core import InferenceCore
from vidseg_trackers.cutie.options import CutieOptions, LongTermOptions
from vidseg_trackers.cutie.tracker import CutieTracker, build
from vidseg_trackers.cutie.weights import load_network
from vidseg_trackers.xmem import memory_reading
from xmem_rule import toy_network, toy_video

HEIGHT, WIDTH = 96, 112
SMALL = LongTermOptions(max_mem_frames=4, min_mem_frames=2, num_prototypes=8, max_num_tokens=60, buffer_tokens=8)
OPTIONS = CutieOptions(size=-1, mem_every=1, long_term=SMALL, max_permanent_frames=3, absence=False)
FRAMES = toy_video(40, HEIGHT, WIDTH)
CPU = torch.device("cpu")


def tracker(options: CutieOptions = OPTIONS) -> CutieTracker:
    made = CutieTracker(toy_cutie(), options)
    made.start(VideoInfo(WIDTH, HEIGHT, 25))
    return made


def prompt(t: int, object_id: int, y: int, x: int, size: int = 30) -> Prompt:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y : y + size, x : x + size] = True
    return Prompt(t, object_id, mask=mask)


def masks_of(tracks: Sequence[Tracks]) -> np.ndarray:
    (one,) = tracks
    assert one.masks is not None
    return one.masks.numpy()


def test_objects_come_go_and_come_again() -> None:
    ours = tracker()
    ours.step(FRAMES[0], [prompt(0, 1, 5, 5), prompt(0, 2, 50, 60)])
    ours.step(FRAMES[1])
    ours.remove([2, 77])
    assert ours.ids == [1]
    ours.step(FRAMES[2], [prompt(2, 2, 40, 40)])
    assert ours.ids == [1, 2]


@pytest.mark.parametrize(("memory", "sums"), [("correct", 1), ("official", 2)])
def test_a_removed_object_takes_its_object_memory_along(memory: str, sums: int) -> None:
    core = InferenceCore(toy_cutie(), CutieOptions(memory=memory, mem_every=100))  # type: ignore[arg-type]
    image = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    mask = torch.from_numpy(prompt(0, 1, 5, 5).mask)
    core.step(image, {1: mask, 2: ~mask})
    once = core.memory.object_memory[1][..., -1].sum()
    core.remove([1])
    core.step(image, {1: mask})
    assert float(core.memory.object_memory[1][..., -1].sum() / once) == pytest.approx(sums, rel=0.05)


def test_a_subset_of_the_known_objects_may_be_corrected_in_any_order() -> None:
    ours = tracker()
    ours.step(FRAMES[0], [prompt(0, 5, 5, 5), prompt(0, 2, 50, 60), prompt(0, 9, 5, 70)])
    ours.step(FRAMES[1], [prompt(1, 9, 8, 66), prompt(1, 2, 50, 50)])
    (tracks,) = ours.step(FRAMES[2])
    assert set(ours.ids) == {5, 2, 9}
    assert set(tracks.ids.tolist()) <= {5, 2, 9}


@pytest.mark.parametrize("joined", [0, 1])
@pytest.mark.parametrize("long_term", [True, False])
def test_a_correction_changes_nothing_that_is_remembered_of_the_others(joined: int, long_term: bool) -> None:
    options = CutieOptions(size=-1, mem_every=5, use_long_term=long_term, absence=False)
    plain, corrected = tracker(options), tracker(options)
    for ours in (plain, corrected):
        for t in range(7):
            prompts = [prompt(t, 1, 5, 5)] if t == 0 else []
            ours.step(FRAMES[t], [*prompts, prompt(t, 2, 50, 60)] if t == joined else prompts)
    plain.step(FRAMES[7])
    corrected.step(FRAMES[7], [prompt(7, 1, 20, 20)])
    a, b = plain.core, corrected.core
    assert a._last_memory == b._last_memory == 5 + joined
    query = (torch.randn(1, 20, a.network.config.key_dim, generator=torch.Generator().manual_seed(0)),) * 2
    with torch.inference_mode():
        said = [dict(zip(ids, rows[0], strict=True)) for core in (a, b) for ids, rows in core.memory.read(*query)]
    reads = [{i: one[i] for one in half for i in one} for half in (said[: len(said) // 2], said[len(said) // 2 :])]
    for of in (lambda core, read: core.sensory, lambda core, read: core.memory.object_memory, lambda core, read: read):
        before, after = of(a, reads[0]), of(b, reads[1])
        torch.testing.assert_close(before[2], after[2])
        assert not torch.allclose(before[1], after[1])


def test_a_state_after_a_correction_continues_bit_for_bit() -> None:
    slow = CutieOptions(size=-1, mem_every=4, max_permanent_frames=2, absence=False)
    first, second = tracker(slow), tracker(slow)
    for t in range(8):
        corrected = [prompt(t, 1, 10 + t, 9)] if t in (2, 3, 6) else []
        first.step(FRAMES[t], [prompt(0, 1, 5, 5), prompt(0, 2, 50, 60)] if t == 0 else corrected)
    (memory,) = first.core.memory.buckets.values()
    assert memory.owners == [[1], None], "the newest correction, and the first frame"
    second.load_state_dict(first.state_dict())
    for t in range(8, 12):
        np.testing.assert_array_equal(masks_of(first.step(FRAMES[t])), masks_of(second.step(FRAMES[t])))


def test_memory_is_bounded_however_often_objects_are_corrected_and_exchanged() -> None:
    ours = tracker()
    sizes = []
    for t, frame in enumerate(FRAMES):
        ours.remove([t - 4])
        prompts = [prompt(t, t + 1, 5, 5)] + ([prompt(t, t, 8, 8)] if t in ours.ids else [])
        ours.step(frame, prompts)
        sizes.append(sum(v.numel() for v in ours.state_dict().values() if isinstance(v, torch.Tensor)))
    assert max(sizes[20:]) <= 1.05 * max(sizes[10:20])
    assert len(ours.core.memory.buckets) <= 5


def test_long_term_memory_is_consolidated_and_never_exceeds_its_bound() -> None:
    ours = tracker()
    for t, frame in enumerate(FRAMES):
        ours.step(frame, [prompt(0, 1, 5, 5)] if t == 0 else [])
    ((working, permanent, long),) = [b.sizes for b in ours.core.memory.buckets.values()]
    tokens = (HEIGHT // 16) * (WIDTH // 16)
    assert permanent == tokens
    assert working <= 4 * tokens
    assert 8 <= long <= 60


def test_memory_is_read_in_parts_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    whole = memory_reading.similarity

    def measure(query: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        scores = whole(query, *rest)
        sizes.append(scores.numel())
        return scores

    outs = []
    for limit in (1 << 22, 500):
        monkeypatch.setattr(bucket, "MAX_SCORES", limit)
        ours = tracker()
        ours.step(FRAMES[0], [prompt(0, 1, 5, 5), prompt(0, 2, 50, 60)])
        ours.step(FRAMES[1])
        monkeypatch.setattr(memory_reading, "similarity", measure)
        outs.append(masks_of(ours.step(FRAMES[2])))
        monkeypatch.setattr(memory_reading, "similarity", whole)
    assert max(sizes[1:]) <= 500 < sizes[0]
    np.testing.assert_allclose(outs[0], outs[1], atol=1e-4)


@pytest.mark.parametrize("options", [OPTIONS, CutieOptions(size=-1, mem_every=2, use_long_term=False, absence=False)])
def test_a_state_continues_bit_for_bit(options: CutieOptions) -> None:
    first, second = tracker(options), tracker(options)
    for t in range(9):
        first.step(FRAMES[t], [prompt(0, 1, 5, 5), prompt(0, 2, 50, 60)] if t == 0 else [])
    second.load_state_dict(first.state_dict())
    for t in range(9, 14):
        prompts = [prompt(t, 3, 20, 20)] if t == 10 else [prompt(t, 1, 9, 9)] if t == 12 else []
        np.testing.assert_array_equal(
            masks_of(first.step(FRAMES[t], prompts)), masks_of(second.step(FRAMES[t], prompts))
        )


def test_the_image_is_encoded_once_per_frame_for_any_number_of_objects() -> None:
    calls: list[int] = []
    network = toy_cutie()
    handle = network.pixel_encoder.register_forward_hook(lambda *_: calls.append(1))
    ours = tracker()
    ours.step(FRAMES[0], [prompt(0, i, 3 * i, 5 * i, 12) for i in range(1, 8)])
    for frame in FRAMES[1:5]:
        ours.step(frame)
    handle.remove()
    assert len(calls) == 5


def test_a_blank_frame_shows_nobody_and_is_not_memorised() -> None:
    ours = CutieTracker(toy_cutie(), CutieOptions(size=-1, mem_every=1))
    ours.start(VideoInfo(WIDTH, HEIGHT, 25))
    ours.step(FRAMES[0], [prompt(0, 1, 5, 5)])
    before = ours.core.memory.buckets[0].sizes
    (tracks,) = ours.step(Frame(1, 1, 0.04, np.zeros((HEIGHT, WIDTH, 3), np.uint8)))
    assert not len(tracks.ids)
    assert ours.core.memory.buckets[0].sizes == before


def test_clearing_everything_begins_anew() -> None:
    core = InferenceCore(toy_cutie(), OPTIONS)
    image, mask = torch.rand(3, HEIGHT, WIDTH), torch.zeros(HEIGHT, WIDTH)
    mask[5:40, 5:40] = 1
    assert core.step(image).shape == (1, HEIGHT, WIDTH)  # nobody yet
    core.step(image, {4: mask})
    core.clear("all")
    assert core.ids == []
    assert core.step(image, {7: mask}).shape == (2, HEIGHT, WIDTH)
    core.clear("sensory")
    assert core.step(image).shape == (2, HEIGHT, WIDTH)
    with pytest.raises(UsageError, match="allowed are all, non_permanent, sensory"):
        core.clear("everything")  # type: ignore[arg-type]


def test_wrong_input_is_one_clear_error_and_the_core_goes_on() -> None:
    core = InferenceCore(toy_cutie(), OPTIONS)
    image, mask = torch.rand(3, HEIGHT, WIDTH), torch.ones(HEIGHT, WIDTH)
    core.step(image, {1: mask})
    with pytest.raises(UsageError, match="object 2: the mask has shape"):
        core.step(image, {2: mask[:50]})
    with pytest.raises(UsageError, match="one size only"):
        core.step(torch.rand(3, 40, 50))
    assert core.step(image).shape == (2, HEIGHT, WIDTH)
    with pytest.raises(UsageError, match="cutie option mem_every"):
        CutieOptions(mem_every=0)
    with pytest.raises(UsageError, match="did you mean 'top_k'"):
        CutieOptions.from_mapping({"topk": 3})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cutie") / "toy.pth"
    torch.save(toy_cutie().state_dict(), path)
    return path


def test_a_file_is_read_without_the_compiler(file: Path) -> None:
    """Drawing initial weights on the meta device would import it, which takes over a second."""
    load = f"import torch; load_network({str(file)!r}, device=torch.device('cpu'), offline=True)"
    code = f"import sys; from vidseg_trackers.cutie.weights import load_network; {load}; print('sympy' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_official_layouts_of_a_file_give_one_network(file: Path, tmp_path: Path) -> None:
    state = torch.load(file)
    training = tmp_path / "training.pth"
    torch.save({"it": 3, "weights": state, "optimizer": {"state": {}, "param_groups": []}, "scheduler": {}}, training)
    bare = tmp_path / "bare.pth"
    torch.save({k: v for k, v in state.items() if "aux_computer" not in k and "inv_freq" not in k}, bare)
    ours = tmp_path / "ours.safetensors"
    save_file({k: v.contiguous() for k, v in state.items()}, ours)
    expected = load_network(str(file), device=CPU, offline=True).state_dict()
    for other in (training, bare, ours):
        got = load_network(str(other), device=CPU, offline=True).state_dict()
        assert all(torch.equal(got[k], v) for k, v in expected.items() if "aux_computer" not in k), other


def test_files_that_are_no_cutie_are_named_as_what_they_are(file: Path, tmp_path: Path) -> None:
    xmem = tmp_path / "xmem.pth"
    torch.save(toy_network().state_dict(), xmem)
    short = tmp_path / "short.pth"
    short.write_bytes(file.read_bytes()[:4000])
    hostile = tmp_path / "hostile.pth"
    hostile.write_bytes(pickle.dumps({"weights": print}))
    lacking = tmp_path / "lacking.pth"
    torch.save({k: v for k, v in torch.load(file).items() if k != "mask_decoder.pred.bias"}, lacking)
    small = tmp_path / "cutie-base-mega.pth"
    small.write_bytes(file.read_bytes())
    for path, words in (
        (xmem, "not a Cutie, but an XMem"),
        (small, "this is the small model, not the base one"),
        (short, "short.pth"),
        (hostile, "hostile.pth"),
        (lacking, "pred.bias"),
    ):
        with pytest.raises(WeightsError, match=words) as error:
            build({"weights": str(path)}, device=CPU, dtype=torch.float32, offline=True)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="did you mean 'cutie-base-mega'"):
        build({"weights": "cutie-base-meg"}, device=CPU, dtype=torch.float32, offline=True)
