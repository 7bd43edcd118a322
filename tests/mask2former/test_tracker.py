"""The tracker: identities from given queries, constant memory, resuming, and the whole-clip mode."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from mask2former_oracle import TOY, moving_waves, toy_network
from vidseg.errors import InputError, UsageError, WeightsError
from vidseg.registry import build_tracker
from vidseg.types import Frame, Prompt, Tracks, VideoInfo
from vidseg_trackers.mask2former.clip import best_objects, query_masks, run_clip
from vidseg_trackers.mask2former.detect import Mask2FormerDetector
from vidseg_trackers.mask2former.frames import fit_frame, full_logits, shrink
from vidseg_trackers.mask2former.matching import OnlineMatcher
from vidseg_trackers.mask2former.network import ClipFeatures
from vidseg_trackers.mask2former.options import Mask2FormerOptions
from vidseg_trackers.mask2former.tracker import Mask2FormerTracker
from vidseg_trackers.mask2former.transformer_decoder import Queries

HEIGHT, WIDTH = 64, 96
VIDEO = VideoInfo(WIDTH, HEIGHT, Fraction(25))
Rect = tuple[int, int, int, int]


@dataclass(frozen=True)
class Seen:
    """What one query says on one frame: which object it looks at, a box (multiples of 4), how sure it is."""

    who: int
    rect: Rect
    score: float = 0.9
    label: int = 0


class GivenQueries(nn.Module):
    """A network whose queries are told what to find, in an order that changes with every clip."""

    def __init__(self, script: Callable[[int], Sequence[Seen]], queries: int = 6, noise: float = 0.3) -> None:
        super().__init__()
        self.config = TOY
        self.anything = nn.Parameter(torch.zeros(1))
        self.script, self.queries, self.noise = script, queries, noise
        self.time = 0

    def encode(self, images: torch.Tensor) -> ClipFeatures:
        t, _, h, w = images.shape
        features = torch.full((t, self.queries, h // 4, w // 4), -8.0)
        for frame in range(t):
            for i, seen in enumerate(self.script(self.time + frame)):
                x1, y1, x2, y2 = (v // 4 for v in seen.rect)
                features[frame, i, y1:y2, x1:x2] = 8.0
        return ClipFeatures((images[:, :1], images[:, :1], images[:, :1]), features)

    def decode(self, features: ClipFeatures) -> Queries:
        now = self.script(self.time)
        rng = torch.Generator().manual_seed(1000 + self.time)
        self.time += len(features.mask_features)
        faces = torch.randn(50, 16, generator=torch.Generator().manual_seed(3))
        logits = torch.zeros(self.queries, TOY.classes + 1)
        embeddings = torch.randn(self.queries, 16, generator=rng)
        for i, seen in enumerate(now):
            # Noise of this size turns a face of norm 4 by about 17 degrees.
            embeddings[i] = faces[seen.who] + self.noise * torch.randn(16, generator=rng)
            logits[i, seen.label] = np.log(seen.score / (1 - seen.score) * TOY.classes)
        logits[len(now) :, -1] = 9.0
        order = torch.randperm(self.queries, generator=rng)
        return Queries(logits[order], embeddings[order], torch.eye(self.queries)[order])


def tracker(network: nn.Module, **options: object) -> Mask2FormerTracker:
    made = Mask2FormerTracker(network, Mask2FormerOptions(**{"size": HEIGHT, **options}))  # type: ignore[arg-type]
    made.start(VIDEO)
    return made


def blank(index: int) -> Frame:
    return Frame(index, index, index / 25, np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def follow(network: nn.Module, count: int, **options: object) -> list[Tracks]:
    made = tracker(network, **options)
    results = [t for i in range(count) for t in made.step(blank(i))] + made.finish()
    assert [t.frame_index for t in results] == list(range(count))
    return results


def id_at(tracks: Tracks, rect: Rect) -> int:
    """The id of the object with exactly this box."""
    (row,) = np.flatnonzero((np.abs(tracks.boxes - np.array(rect, np.float32)) <= 1).all(1))
    return int(tracks.ids[row])


# One object stays, two run through each other and one of them is hidden for ten frames, another one leaves for ten.
STAYS, RUNS, MEETS, LEAVES = 0, 1, 2, 3


def place(who: int, t: int) -> Rect:
    if who == STAYS:
        return 0, 0, 16, 16
    if who == RUNS:
        return 2 * t // 4 * 4, 24, 2 * t // 4 * 4 + 16, 44
    if who == MEETS:
        return 80 - 2 * t // 4 * 4, 24, 96 - 2 * t // 4 * 4, 44
    return (64, 48, 80, 60) if t < 20 else (24, 48, 40, 60)


def crossing(t: int) -> list[Seen]:
    seen = [Seen(STAYS, place(STAYS, t), 0.95, 1), Seen(RUNS, place(RUNS, t))]
    if not 15 <= t < 25:
        seen.append(Seen(MEETS, place(MEETS, t), 0.8))
    else:  # its query clings to the object in front
        seen.append(Seen(40, place(RUNS, t), 0.3))
    if not 10 <= t < 20:
        seen.append(Seen(LEAVES, place(LEAVES, t), 0.85, 2))
    return seen


@pytest.mark.parametrize("window", [1, 3])
def test_identities_survive_crossing_and_ten_hidden_frames(window: int) -> None:
    results = follow(GivenQueries(crossing), 40, window=window, max_gap=12)
    ids = {}
    for t, tracks in enumerate(results):
        for seen in crossing(t):
            if seen.who <= LEAVES and t not in (*range(9, 12), *range(14, 18), *range(19, 22), *range(24, 28)):
                ids.setdefault(seen.who, set()).add(id_at(tracks, place(seen.who, t)))
    assert all(len(names) == 1 for names in ids.values())
    assert len(set.union(*ids.values())) == 4
    if window == 1:
        assert all(len(tracks.ids) == sum(s.who <= LEAVES for s in crossing(t)) for t, tracks in enumerate(results))
        assert max(int(tracks.ids.max()) for tracks in results) == 4


def test_after_a_longer_gap_the_object_is_a_new_one() -> None:
    results = follow(GivenQueries(crossing), 40, max_gap=9)
    assert id_at(results[5], place(LEAVES, 5)) != id_at(results[30], place(LEAVES, 30))
    assert id_at(results[5], place(STAYS, 5)) == id_at(results[30], place(STAYS, 30))


def test_embeddings_decide_not_places() -> None:
    """Two objects that change places between two frames keep their ids."""

    def swap(t: int) -> list[Seen]:
        here, there = (0, 0, 16, 16), (48, 32, 64, 48)
        return [Seen(0, here if t < 5 else there), Seen(1, there if t < 5 else here)]

    results = follow(GivenQueries(swap), 10)
    assert id_at(results[4], (0, 0, 16, 16)) == id_at(results[5], (48, 32, 64, 48)) != id_at(results[5], (0, 0, 16, 16))


def test_scores_and_labels_are_running_means() -> None:
    """One frame with another class does not change the label, and the score lies between those of the frames."""

    def flicker(t: int) -> list[Seen]:
        return [Seen(0, (0, 0, 32, 32), 0.7 if t == 4 else 0.9, 3 if t == 4 else 1)]

    results = follow(GivenQueries(flicker), 8, classes="numbers")
    assert {tracks.labels for tracks in results} == {("2",)}
    assert results[3].scores[0] == pytest.approx(0.9, abs=1e-3)
    assert 0.6 < results[4].scores[0] < 0.9
    assert results[4].scores[0] < results[7].scores[0] < 0.9


def test_birth_needs_a_sure_query_and_a_place_of_its_own() -> None:
    def scene(t: int) -> list[Seen]:
        return [
            Seen(0, (0, 0, 32, 32), 0.9 if t != 3 else 0.2),  # followed although it is doubtful for a moment
            Seen(1, (48, 0, 80, 32), 0.4),  # never sure
            Seen(2, (0, 0, 32, 28), 0.8 if t != 3 else 0.1),  # draws the same as the first one
        ]

    results = follow(GivenQueries(scene), 6)
    assert [tracks.ids.tolist() for tracks in results] == [[1]] * 6


def test_a_doubtful_query_does_not_bring_back_a_hidden_object() -> None:
    def scene(t: int) -> list[Seen]:
        if 2 <= t < 5:
            return []
        return [Seen(0, (0, 0, 32, 32), 0.3 if t == 5 else 0.9)]

    results = follow(GivenQueries(scene), 8)
    assert [len(tracks.ids) for tracks in results] == [1, 1, 0, 0, 0, 0, 1, 1]
    assert results[7].ids.tolist() == [1]


def test_most_objects() -> None:
    def crowd(t: int) -> list[Seen]:
        return [Seen(i, (16 * i, 0, 16 * i + 16, 16), 0.6 + 0.05 * i) for i in range(6)]

    results = follow(GivenQueries(crowd), 4, max_objects=2)
    assert [tracks.ids.tolist() for tracks in results] == [[1, 2]] * 4
    assert id_at(results[3], (80, 0, 96, 16)) == 1  # the surest


def test_most_objects_also_when_hidden_ones_come_back() -> None:
    def shift(t: int) -> list[Seen]:
        everybody = [Seen(i, (16 * i, 0, 16 * i + 16, 16), 0.6 + 0.1 * i) for i in range(4)]
        return everybody[:2] if t < 3 else everybody[2:] if t < 6 else everybody

    results = follow(GivenQueries(shift), 9, max_objects=2)
    assert [sorted(tracks.ids.tolist()) for tracks in results] == [[1, 2]] * 3 + [[3, 4]] * 6


def test_only_the_last_sure_embeddings_are_remembered() -> None:
    matcher = OnlineMatcher(Mask2FormerOptions(memory=3))
    place = torch.ones(1, 4, dtype=torch.bool)
    embeddings = torch.nn.functional.normalize(torch.tensor([[10.0, float(t)] for t in range(6)]), dim=1)
    for t in range(6):
        doubtful = t == 4
        logits = torch.tensor([[0.0, 2.0]]) if doubtful else torch.tensor([[3.0, 0.0]])
        match = matcher.step(t, t, logits, embeddings[t : t + 1], place)
        assert match.ids.tolist() == [1]
    torch.testing.assert_close(matcher.state_dict()["memory"], embeddings[[2, 3, 5]])


def test_what_is_remembered_is_bounded() -> None:
    """Every frame shows somebody new: only so many are remembered, and ids are never given again."""

    def parade(t: int) -> list[Seen]:
        return [Seen(t, (0, 0, 32, 32))]

    made = tracker(GivenQueries(parade, noise=0.0), max_tracks=5, max_objects=5, max_gap=1000, min_similarity=0.95)
    ids = [int(made.step(blank(t))[0].ids[0]) for t in range(20)]
    assert ids == list(range(1, 21))
    assert torch.as_tensor(made.state_dict()["matcher.ids"]).tolist() == [16, 17, 18, 19, 20]


def live_bytes() -> int:
    gc.collect()
    tensors: dict[int, int] = {}
    for t in gc.get_objects():
        if type(t) is torch.Tensor:
            with contextlib.suppress(RuntimeError):  # tensors without storage, which other tests may have left
                tensors[t.data_ptr()] = t.untyped_storage().nbytes()
    return sum(tensors.values())


def test_memory_is_constant_over_150_frames() -> None:
    made = tracker(toy_network(), min_score=0.2, max_overlap=1.0, max_gap=20, max_tracks=20, max_objects=5)
    frames = moving_waves(30, HEIGHT, WIDTH, 2)
    sizes, objects = {}, 0
    for t in range(150):
        (tracks,) = made.step(Frame(t, t, t / 25, frames[t % 30]))
        objects += len(tracks.ids)
        if t in (89, 119, 149):
            state = sum(v.numel() for v in made.state_dict().values() if isinstance(v, torch.Tensor))
            sizes[t] = live_bytes(), state
    assert objects > 150
    assert sizes[89] == sizes[119] == sizes[149]


def equal(a: Sequence[Tracks], b: Sequence[Tracks]) -> bool:
    return len(a) == len(b) and all(
        x.frame_index == y.frame_index
        and x.labels == y.labels
        and all(np.array_equal(getattr(x, f), getattr(y, f)) for f in ("ids", "boxes", "scores", "masks"))
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"mode": "offline"}], ids=["online", "window", "offline"])
def test_resuming_is_bit_identical(options: dict[str, object]) -> None:
    network = toy_network()
    frames = [Frame(t, t, t / 25, rgb) for t, rgb in enumerate(moving_waves(14, 90, 130, 8))]

    def fresh() -> Mask2FormerTracker:
        return tracker(network, min_score=0.2, max_gap=3, **options)

    whole = fresh()
    want = [t for frame in frames for t in whole.step(frame)] + whole.finish()
    first = fresh()
    got = [t for frame in frames[:7] for t in first.step(frame)]
    state = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in first.state_dict().items()}
    second = fresh()
    second.load_state_dict(state)
    got += [t for frame in frames[7:] for t in second.step(frame)] + second.finish()
    assert equal(got, want)
    assert sum(len(t.ids) for t in want) >= len(frames)


def test_offline_is_the_official_choice() -> None:
    """The ten best pairs over the whole clip, every query once, boxes of the masks in pixels of the video."""
    network = toy_network()
    frames = moving_waves(6, 90, 130, 4)
    made = tracker(network, mode="offline", min_score=0.0, max_objects=10, classes="numbers")
    assert made.lookahead == sys.maxsize
    assert all(made.step(Frame(t, t, 0.0, rgb)) == [] for t, rgb in enumerate(frames))
    results = made.finish()
    assert made.finish() == []

    sizes = fit_frame((90, 130), HEIGHT, 1333)
    queries, features = run_clip(network, [shrink(rgb, sizes) for rgb in frames], sizes)
    best = best_objects(queries)
    firsts = [best.queries.tolist().index(q) for q in dict.fromkeys(best.queries.tolist())]
    logits = query_masks(queries, best.queries[firsts], features)
    assert len(firsts) < len(best.queries)
    for t, tracks in enumerate(results):
        full = full_logits(logits[:, t], sizes) > 0
        seen = [k for k in range(len(firsts)) if full[k].any()]
        assert tracks.ids.tolist() == [k + 1 for k in seen]
        np.testing.assert_array_equal(tracks.scores, best.scores[firsts].numpy()[seen])
        assert tracks.labels == tuple(str(int(best.labels[firsts][k]) + 1) for k in seen)
        for box, k in zip(tracks.boxes, seen, strict=True):
            ys, xs = np.nonzero(full[k].numpy())
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_masks_cover_the_frame_without_padding() -> None:
    """A 100x68 frame is padded to 128x96 for the network; its masks are 25x17."""
    network = GivenQueries(lambda t: [Seen(0, (80, 48, 128, 96))])
    frame = Frame(0, 0, 0.0, np.zeros((68, 100, 3), np.uint8))
    (tracks,) = tracker(network, size=68).step(frame)
    assert tracks.masks is not None and tracks.masks.shape == (1, 17, 25) and tracks.masks.dtype == torch.float32
    assert not tracks.exclusive  # every mask has its own background
    assert tracks.boxes.tolist() == [[80, 48, 100, 68]]
    inside = np.zeros((17, 25), bool)
    inside[12:, 20:] = True
    np.testing.assert_array_equal(tracks.masks[0] > 0.5, inside)


def test_objects_in_the_padding_only_are_not_there() -> None:
    network = GivenQueries(lambda t: [Seen(0, (104, 0, 128, 96))])
    frame = Frame(0, 0, 0.0, np.zeros((68, 100, 3), np.uint8))
    made = tracker(network, size=68)
    (tracks,) = made.step(frame)
    assert len(tracks.ids) == 0 and tracks.boxes.shape == (0, 4)
    assert made.state_dict()["matcher.next_id"] == 1  # nor do they use up ids


def test_window_gives_results_when_it_is_full() -> None:
    made = tracker(GivenQueries(lambda t: [Seen(0, (0, 0, 32, 32))]), window=3)
    assert made.lookahead == 2
    counts = [len(made.step(blank(t))) for t in range(7)]
    assert counts == [0, 0, 3, 0, 0, 3, 0]
    assert [t.frame_index for t in made.finish()] == [6]


def test_start_forgets_everything() -> None:
    made = tracker(GivenQueries(lambda t: [Seen(t % 40, (0, 0, 32, 32))], noise=0.0), min_similarity=0.99)
    for t in range(3):
        made.step(blank(t))
    made.start(VIDEO)
    assert made.step(blank(0))[0].ids.tolist() == [1]


def test_prompts_and_changing_sizes_are_refused() -> None:
    made = tracker(GivenQueries(lambda t: []), mode="offline")
    with pytest.raises(UsageError, match="finds objects automatically"):
        made.step(blank(0), [Prompt(0, 1, box=(0, 0, 5, 5))])
    made.step(blank(0))
    with pytest.raises(InputError, match="frame 1 is 50x40"):
        made.step(Frame(1, 1, 0.0, np.zeros((40, 50, 3), np.uint8)))


def test_half_precision_leaves_the_pixel_decoder_alone() -> None:
    network, frames = toy_network(), moving_waves(1, 64, 96, 2)
    sizes = fit_frame((64, 96), 64, 1333)
    seen = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
        for module in (network.backbone.res3, network.sem_seg_head.pixel_decoder.mask_features)
    ]
    queries, features = run_clip(network, frames, sizes, torch.bfloat16)
    for hook in hooks:
        hook.remove()
    assert seen == [torch.bfloat16, torch.float32]
    assert queries.class_logits.dtype == features.dtype == torch.float32
    exact, _ = run_clip(network, frames, sizes)
    assert 0 < float((queries.class_logits - exact.class_logits).abs().mean()) < 0.5


def test_entry_point(tmp_path, monkeypatch) -> None:
    network = toy_network()
    torch.save({"model": network.state_dict()}, tmp_path / "toy.pth")
    options = {"weights": str(tmp_path / "toy.pth"), "size": 64, "min_score": 0.2}
    made = build_tracker("mask2former", options)
    assert made.finds_objects and not made.wants_masks and made.lookahead == 0
    assert build_tracker("mask2former", {**options, "mode": "offline"}).lookahead == sys.maxsize
    made.start(VIDEO)
    (tracks,) = made.step(Frame(0, 0, 0.0, moving_waves(1, HEIGHT, WIDTH, 2)[0]))
    assert len(tracks.ids) > 0
    with pytest.raises(UsageError, match=r"unknown option 'min_scroe' \(did you mean 'min_score'\?\)"):
        build_tracker("mask2former", {**options, "min_scroe": 1})
    monkeypatch.setenv("VIDSEG_WEIGHTS", str(tmp_path / "empty"))
    with pytest.raises(WeightsError, match="vidseg weights fetch"):
        build_tracker("mask2former", {}, offline=True)


@pytest.mark.parametrize(
    "options",
    [
        {"window": 0},
        {"mode": "offline", "window": 2},
        {"min_score": 1.5},
        {"min_similarity": -2.0},
        {"size": 8},
        {"max_tracks": 3},
        {"mode": "sideways"},
    ],
)
def test_wrong_options(options: dict[str, object]) -> None:
    (name,) = [k for k in options if k != "mode"] or ["mode"]
    with pytest.raises(UsageError, match=name):
        Mask2FormerOptions.from_mapping(options)


def test_proposals_of_a_frame() -> None:
    network = GivenQueries(
        lambda t: [Seen(0, (0, 0, 32, 32), 0.7, 1), Seen(1, (40, 0, 72, 32), 0.9, 2), Seen(2, (0, 40, 8, 48), 0.2)]
    )
    detector = Mask2FormerDetector(network, Mask2FormerOptions(size=HEIGHT))  # type: ignore[arg-type]
    first, second = detector.detect(blank(0))
    assert (first.label, second.label) == ("3", "2")
    assert first.score == pytest.approx(0.9, abs=1e-3)
    assert first.mask.shape == (HEIGHT, WIDTH) and not first.mask[32:].any() and not first.mask[:, :40].any()
    assert first.mask[:32, 40:72].sum() >= 32 * 32 - 4  # interpolation rounds the corners
