"""Run-lengths equal pycocotools byte for byte, also from a window; malformed ones are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from vidseg.errors import InputError
from vidseg.masks import area, bbox, decode, decode_window, empty_rle, encode, encode_window, from_coco, mask_box
from vidseg.types import Rle

masks = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24).flatmap(lambda s: hnp.arrays(np.bool_, s))


def official(mask: np.ndarray) -> bytes:
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


@settings(max_examples=300, deadline=None)
@given(masks)
def test_bytes_equal_pycocotools_and_come_back(mask):
    rle = encode(mask)
    assert rle.counts == official(mask)
    assert (decode(rle) == mask).all()
    assert area(rle) == mask.sum()
    assert (bbox(rle) == mask_box(mask)).all()
    window, y0, x0 = decode_window(rle)
    assert (window == mask[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]]).all()
    assert window.sum() == mask.sum()


@settings(max_examples=300, deadline=None)
@given(masks, st.tuples(*[st.integers(0, 3)] * 4))
def test_a_window_equals_the_whole_mask(window, margins):
    top, left, bottom, right = margins
    whole = np.pad(window, ((top, bottom), (left, right)))
    assert encode_window(window, top, left, *whole.shape).counts == official(whole)


def test_large_masks_use_long_counts():
    mask = np.zeros((3000, 2000), np.bool_)
    mask[2999, 1999] = mask[0, 0] = True
    assert encode(mask).counts == official(mask)
    assert (decode(encode(mask)) == mask).all()
    assert empty_rle(3000, 2000).counts == official(np.zeros((3000, 2000), np.bool_))


def test_box_of_a_mask_is_exclusive():
    mask = np.zeros((10, 12), np.bool_)
    mask[3:5, 7:12] = True
    assert bbox(encode(mask)).tolist() == [7, 3, 12, 5]


def test_window_outside_the_mask_is_refused():
    with pytest.raises(InputError, match="does not lie inside"):
        encode_window(np.ones((3, 3)), 8, 0, 10, 10)


def test_uncompressed_counts_are_accepted():
    mask = np.zeros((4, 3), np.bool_)
    mask[1:3, 1] = True
    assert from_coco({"size": [4, 3], "counts": [5, 2, 5]}) == encode(mask)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"size": [4, 3]},
        {"size": [4], "counts": "0"},
        {"size": [4, -3], "counts": "0"},
        {"size": [True, 12], "counts": [12]},
        {"size": [1 << 20, 1 << 20], "counts": [1 << 40]},
        {"size": [4, 3], "counts": ""},
        {"size": [4, 3], "counts": "<<"},
        {"size": [4, 3], "counts": "P"},
        {"size": [4, 3], "counts": "é"},
        {"size": [4, 3], "counts": "\x00"},
        {"size": [4, 3], "counts": "=" + "o" * 30 + "0"},
        {"size": [4, 3], "counts": [5, 2, 4]},
        {"size": [4, 3], "counts": [5, -2, 9]},
        {"size": [4, 3], "counts": 12},
    ],
)
def test_untrusted_run_lengths_are_refused(value):
    with pytest.raises(InputError, match="RLE"):
        from_coco(value)


def oracle(text: bytes, height: int, width: int) -> np.ndarray | None:
    """The mask that run-lengths stand for, character by character; None when they are malformed or sum up wrongly."""
    counts: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        more = True
        while more:
            if place == len(text) or not 48 <= text[place] < 112 or shift > 30:  # seven characters hold any count
                return None
            digit, place = text[place] - 48, place + 1
            value |= (digit & 31) << shift
            shift, more = shift + 5, bool(digit & 32)
        value -= (1 << shift) if digit & 16 else 0
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    if min(counts, default=-1) < 0 or sum(counts) != height * width:
        return None
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def test_fuzzed_run_lengths_never_escape():
    """10,000 strings with changed, missing and added bytes, and for masks of another size: the same answer as above."""
    rng = np.random.default_rng(5)
    accepted = wrong_sums = 0
    for number in range(10_000):
        text = bytearray(encode(rng.random((6, 5)) < 0.3).counts)
        for _ in range(rng.integers(0, 4)):
            place, change = rng.integers(len(text)), rng.integers(3)
            if change == 0:
                text[place] = rng.integers(256)
            elif change == 1 and len(text) > 1:
                del text[place]
            else:
                text.insert(place, rng.integers(40, 120))
        size = [6, 5] if number % 4 else [int(n) for n in rng.integers(1, 9, 2)]
        wanted = oracle(bytes(text), *size)
        wrong_sums += wanted is None and size != [6, 5]
        try:
            mask = decode(from_coco({"size": size, "counts": bytes(text)}))
        except InputError:
            assert wanted is None, (text, size)
            continue
        accepted += 1
        assert wanted is not None, (text, size)
        assert (mask == wanted).all()
        assert (coco.decode({"size": size, "counts": bytes(text)}) == mask).all()
    assert 1500 < accepted < 9000
    assert wrong_sums > 1000


def test_decode_checks_the_sum_too():
    with pytest.raises(InputError):
        decode(Rle(100, 100, b"0"))
