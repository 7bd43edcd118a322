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
    presence.prompted(image)
    far = torch.full((1, 2, 2), -900.0)
    assert presence.absent(image, doubtful, torch.full((1, 2, 2), -100.0), [7]) == []
    assert presence.absent(image + 0.4, doubtful, far, [7]) == []
    assert presence.absent(image + 2, doubtful, far, [7]) == [0]


def test_a_speck_in_an_empty_sky_is_no_blank_frame() -> None:
    sky = np.full((480, 854, 3), 180, np.uint8)
    geometry = InnerGeometry.of((480, 854), 320)
    assert is_blank(prepare_frame(sky, geometry, True, CPU))
    sky[200:206, 300:306] = 90
    assert not is_blank(prepare_frame(sky, geometry, True, CPU))


def test_a_state_taken_in_a_gap_continues_bit_identically() -> None:
    images = [scene(1, t) for t in range(3)] + [other(50), GAPS["black"](0)] + [scene(1, t) for t in range(3, 6)]
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
