"""Connected parts of masks."""

import cv2
import numpy as np

from vidseg.masks.parts import parts_at


def test_parts_under_places_are_those_that_labelling_all_parts_gives() -> None:
    random = np.random.default_rng(4)
    for share in (0.35, 0.6):
        mask = random.random((60, 90)) < share
        places = [(float(x), float(y)) for x, y in random.uniform((0, 0), (90, 60), (3, 2))]
        _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        hit = {labels[int(y), int(x)] for x, y in places} - {0}
        expected = np.isin(labels, list(hit))
        assert np.array_equal(parts_at(mask, places), expected)
        assert np.array_equal(parts_at(mask[:, ::-1], [(89.5 - int(x), y) for x, y in places]), expected[:, ::-1])
    assert not parts_at(np.zeros((4, 5), np.bool_), [(4.9, 3.9)]).any()
