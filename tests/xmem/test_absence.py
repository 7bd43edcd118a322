"""Objects that are not there: blank frames and other scenes have no mask, teach nothing, and the object comes back."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch

from vidseg.types import Frame, Prompt, Tracks, VideoInfo
from vidseg_trackers.mask_tracking.absence import Presence, is_blank
from vidseg_trackers.mask_tracking.preprocess import InnerGeometry, prepare_frame
from vidseg_trackers.xmem.tracker import XMemTracker, build

CPU = torch.device("cpu")
SIZE = (128, 192)
BEFORE, GAP = 3, 4


def scene(seed: int, t: int = 0) -> np.ndarray:
    """Soft blobs of colour with a textured disc that moves to the right."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 255, (5, 7, 3), np.uint8), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    texture = cv2.resize(rng.integers(0, 255, (32, 48, 3), np.uint8), SIZE[::-1])
    inside = disc(t)
    image[inside] = texture[inside]
    return image


def disc(t: int) -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return (y - 64) ** 2 + (x - 70 - 2 * t) ** 2 < 26**2


def background(seed: int) -> np.ndarray:
    """:func:`scene` without its disc."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 255, (5, 7, 3), np.uint8), SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def other(seed: int) -> np.ndarray:
    """A scene that shares nothing with :func:`scene`."""
    return cv2.flip(255 - scene(seed, 20), 0)


GAPS = {
    "black": lambda k: np.zeros((*SIZE, 3), np.uint8),
    "grey": lambda k: np.full((*SIZE, 3), 128, np.uint8),
    "white": lambda k: np.full((*SIZE, 3), 255, np.uint8),
    "sensor noise": lambda k: np.random.default_rng(k).normal(9, 4, (*SIZE, 3)).clip(0, 255).astype(np.uint8),
    "noise": lambda k: np.random.default_rng(k).integers(0, 255, (*SIZE, 3), np.uint8),
    "other scenes": lambda k: other(50 + k),
}


def follow(images: list[np.ndarray], **options: object) -> tuple[XMemTracker, list[Tracks], list[int]]:
    """The tracker, what it said, and the size of the memory after each."""
    xmem = build({"size": 128, "mem_every": 2, **options}, device=CPU, dtype=torch.float32, offline=True)
    xmem.start(VideoInfo(SIZE[1], SIZE[0], Fraction(24)))
    out, memorised = [], []
    for t, image in enumerate(images):
        out += xmem.step(Frame(t, t, t / 24, image), [Prompt(0, 1, mask=disc(0))] if t == 0 else [])
        memorised.append(sum(xmem.online.memory.sizes))
    return xmem, out, memorised


def iou(tracks: Tracks, t: int) -> float:
    assert tracks.masks is not None
    if not len(tracks.ids):
        return 0.0
    mask = cv2.resize(tracks.masks[0].numpy(), SIZE[::-1]) > 0.5
    return float((mask & disc(t)).sum() / (mask | disc(t)).sum())


@pytest.mark.parametrize("kind", GAPS)
def test_an_object_is_absent_in_a_gap_and_comes_back(kind: str) -> None:
    times = [*range(BEFORE), *range(BEFORE, BEFORE + 3)]
    images = [scene(1, t) for t in times]
    images[BEFORE:BEFORE] = [GAPS[kind](k) for k in range(GAP)]
    _, out, memorised = follow(images)
    assert [len(tracks.ids) for tracks in out[BEFORE : BEFORE + GAP]] == [0] * GAP
    assert memorised[BEFORE - 1] == memorised[BEFORE + GAP - 1]
    for tracks, t in zip(out[BEFORE + GAP :], times[BEFORE:], strict=True):
        assert iou(tracks, t) > 0.9


def test_without_the_rule_false_masks_are_found_and_learned() -> None:
    images = [scene(1, t) for t in range(BEFORE)] + [GAPS["other scenes"](k) for k in range(GAP)]
    for options in ({"absence": False}, {"memory": "official"}):
        _, out, _ = follow(images, **options)
        assert any(len(tracks.ids) for tracks in out[BEFORE:])


CHANGES = {
    "blurred": lambda image: cv2.GaussianBlur(image, (0, 0), 3),
    "dim": lambda image: (0.2 * image).astype(np.uint8),
    "foggy": lambda image: (0.3 * image + 170).astype(np.uint8),
    "flash": lambda image: (0.4 * image + 150).astype(np.uint8),
    "grainy": lambda image: (image + np.random.default_rng(0).normal(0, 25, image.shape)).clip(0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_visible_object_is_not_lost_however_badly_it_is_seen(change: str) -> None:
    images = [scene(1, t) for t in range(BEFORE)] + [CHANGES[change](scene(1, t)) for t in range(BEFORE, BEFORE + 2)]
    _, out, _ = follow(images)
    assert all(iou(tracks, t) > 0.5 for t, tracks in enumerate(out))


def test_nothing_is_left_out_while_the_video_changes_gradually() -> None:
    """Also where the network is in doubt: a mask of mean probability 0.52, far from memory."""
    presence, image = Presence(), torch.zeros(1, 3, 32, 32)
    doubtful = torch.full((2, 32, 32), 0.48)
    doubtful[1] = 0.52
    presence.prompted(image, [7])
    far = torch.full((1, 2, 2), -900.0)
    assert presence.absent(image, doubtful, torch.full((1, 2, 2), -100.0), [7]) == []
    assert presence.absent(image + 0.4, doubtful, far, [7]) == []
    assert presence.absent(image + 2, doubtful, far, [7]) == [0]


GHOSTLY = 5  # a scene in whose background the network finds the disc that has left


def test_an_object_that_left_has_no_ghost_and_is_seen_when_it_returns() -> None:
    times = [*range(BEFORE), *range(BEFORE, BEFORE + 3)]
    images = [scene(GHOSTLY, t) for t in times]
    images[BEFORE:BEFORE] = [background(GHOSTLY)] * GAP
    _, out, memorised = follow(images)
    assert [len(tracks.ids) for tracks in out[BEFORE : BEFORE + GAP]] == [0] * GAP
    assert memorised[BEFORE - 1] == memorised[BEFORE + GAP - 1]
    for tracks, t in zip(out[BEFORE + GAP :], times[BEFORE:], strict=True):
        assert iou(tracks, t) > 0.9
    _, out, _ = follow(images, absence=False)
    assert [len(tracks.ids) for tracks in out[BEFORE : BEFORE + GAP]] == [1] * GAP


USUAL, LARGE, TINY = 0.95, np.s_[8:24, 8:24], np.s_[15:18, 15:18]


def seen(presence: Presence, certainty: float, where: tuple[slice, slice] = LARGE) -> bool:
    """Is an object of so certain a mask on the next frame of a video that does not change?"""
    one = torch.zeros(32, 32)
    one[where] = certainty
    return not presence.absent(torch.zeros(1, 3, 32, 32), torch.stack([1 - one, one]), torch.full((1, 2, 2), -1.0), [7])


def familiar() -> Presence:
    """An object was on two frames."""
    presence = Presence()
    assert seen(presence, USUAL) and seen(presence, USUAL)
    return presence


def test_a_sudden_loss_of_certainty_is_absence_until_it_is_certain_again() -> None:
    presence = familiar()
    assert seen(presence, 0.85 * USUAL)
    assert not seen(presence, 0.75 * USUAL)
    assert not seen(presence, 0.85 * USUAL)
    assert seen(presence, 0.9 * USUAL)


def test_a_part_of_an_object_counts_if_it_is_certain_or_at_the_border() -> None:
    presence = familiar()
    assert [seen(presence, c * USUAL, TINY) for c in (0.85, 0.85, 0.9, 0.96)] == [True, False, False, True]
    presence = familiar()
    assert all(seen(presence, 0.9 * USUAL, TINY) for _ in range(3))
    assert seen(familiar(), 0.6 * USUAL, np.s_[29:32, 8:24])


def test_similar_objects_that_meet_are_not_ghosts_of_each_other() -> None:
    """Each has half of what the background has not."""
    presence, two = familiar(), torch.zeros(2, 32, 32)
    two[0][LARGE], two[1][LARGE] = 0.48, 0.46
    image, nearest = torch.zeros(1, 3, 32, 32), torch.full((2, 2, 2), -1.0)
    assert presence.absent(image, torch.cat([1 - two.sum(0, keepdim=True), two]), nearest, [7, 8]) == []


def test_an_object_that_was_missing_may_return_uncertain_but_not_small() -> None:
    presence = familiar()
    assert seen(presence, 0.0)  # nothing to leave out
    assert not seen(presence, 0.75 * USUAL, TINY)
    assert seen(presence, 0.75 * USUAL)


def test_no_object_is_refused_for_ever() -> None:
    presence, shown = familiar(), 0
    while not seen(presence, 0.65 * USUAL):
        shown += 1
    assert 40 < shown < 80
    assert all(seen(presence, 0.65 * USUAL) for _ in range(20))  # from here on that is usual


def test_a_frame_without_a_mask_makes_no_ghost_an_object() -> None:
    presence = familiar()
    assert not seen(presence, 0.74 * USUAL)
    assert seen(presence, 0.0)
    assert not seen(presence, 0.74 * USUAL)


def test_a_video_may_change_gradually_while_a_ghost_is_refused() -> None:
    presence, one = familiar(), torch.zeros(32, 32)
    for t in range(41):  # it gets light
        one[LARGE] = (0.65 if t < 40 else 0.8) * USUAL
        image = torch.full((1, 3, 32, 32), 0.05 * t)
        gone = presence.absent(image, torch.stack([1 - one, one]), torch.full((1, 2, 2), -2.0), [7])
        assert gone == ([0] if t < 40 else [])


def test_a_prompted_or_forgotten_object_may_look_as_it_likes() -> None:
    for change in (lambda p: p.prompted(torch.zeros(1, 3, 32, 32), [7]), lambda p: p.forget([7])):
        presence = familiar()
        change(presence)
        assert seen(presence, 0.6 * USUAL, TINY)


def test_a_state_judges_alike_and_an_earlier_one_knows_distances_alone() -> None:
    presence, copy = familiar(), Presence()
    assert not seen(presence, 0.75 * USUAL)
    copy.load_state_dict(presence.state_dict(), CPU)
    assert copy.state_dict().keys() == presence.state_dict().keys()
    assert not seen(copy, 0.85 * USUAL)
    copy.load_state_dict({"distance.7": 1.0}, CPU)
    assert seen(copy, 0.6, TINY)


def test_a_speck_in_an_empty_sky_is_no_blank_frame() -> None:
    sky = np.full((480, 854, 3), 180, np.uint8)
    geometry = InnerGeometry.of((480, 854), 320)
    assert is_blank(prepare_frame(sky, geometry, True, CPU))
    sky[200:206, 300:306] = 90
    assert not is_blank(prepare_frame(sky, geometry, True, CPU))


@pytest.mark.parametrize(("seed", "gap"), [(1, [other(50), GAPS["black"](0)]), (GHOSTLY, [background(GHOSTLY)] * 2)])
def test_a_state_taken_in_a_gap_continues_bit_identically(seed: int, gap: list[np.ndarray]) -> None:
    images = [scene(seed, t) for t in range(3)] + gap + [scene(seed, t) for t in range(3, 6)]
    _, whole, _ = follow(images)
    first, _, _ = follow(images[:4])
    second = XMemTracker(first.online.network, first.options)
    second.start(VideoInfo(SIZE[1], SIZE[0], Fraction(24)))
    second.load_state_dict(first.state_dict())
    for t in range(4, len(images)):
        (tracks,) = second.step(Frame(t, t, t / 24, images[t]))
        assert np.array_equal(tracks.ids, whole[t].ids)
        assert np.array_equal(tracks.masks, whole[t].masks)  # type: ignore[arg-type]


def test_frames_of_absence_count_and_a_prompt_shows_an_object_on_any_frame() -> None:
    images = [scene(1), *(GAPS["black"](0) for _ in range(3))]
    xmem, _, _ = follow(images, forget_after=3)
    assert xmem.online.ids == []
    (tracks,) = xmem.step(Frame(4, 4, 0.2, images[1]), [Prompt(4, 2, mask=disc(0))])
    assert tracks.ids.tolist() == [2]
