"""CVAT's own driver and contexts call our functions; the masks are those of a session."""

from __future__ import annotations

import importlib
import logging
from types import SimpleNamespace
from typing import Any

import cvat_sdk.auto_annotation as cvataa
import numpy as np
import pytest
from cvat_sdk import models
from cvat_sdk.auto_annotation import driver
from cvat_sdk.masks import decode_mask, encode_mask
from PIL import Image

from golden_masks import HEIGHT, WIDTH, overlap, scene, shapes
from toys import search_quickly
from vidseg import Session
from vidseg.errors import UsageError
from vidseg.integrations import cvat
from vidseg_pipelines import object_finder

PICTURES = [Image.fromarray(scene(t)) for t in range(3)]


class Context(cvataa.TrackingFunctionShapeContext):
    original_shape_type = "mask"


class Prompts(cvataa.InteractionPrompts):
    pos_points = ((225, 120),)
    neg_points = ()
    bounding_box = None


def test_the_driver_takes_what_is_found_on_stills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_finder, "discover_objects", search_quickly)
    label = SimpleNamespace(name="object", id=77, type="any", attributes=[], sublabels=[])
    samples = [
        SimpleNamespace(frame_name="a.png", frame_index=n, media=SimpleNamespace(load_image=lambda p=p: p))
        for n, p in enumerate(PICTURES[:2])
    ]
    dataset = SimpleNamespace(labels=[label], samples=samples)
    monkeypatch.setattr(driver, "TaskDataset", lambda client, task, load_annotations: dataset)
    sent: list[Any] = []
    api = SimpleNamespace(partial_update_annotations=lambda action, task, **body: sent.append(body))
    client: Any = SimpleNamespace(logger=logging.getLogger("cvat"), tasks=SimpleNamespace(api=api))
    function = importlib.import_module("vidseg.integrations.cvat").create(task="detect")
    driver.annotate_task(client, 1, function)
    (body,) = sent
    found = body["patched_labeled_data_request"].shapes
    assert {one.frame for one in found} == {0, 1} and {one.label_id for one in found} == {77}
    masks = [decode_mask(one.points, image_width=WIDTH, image_height=HEIGHT) for one in found if one.frame == 0]
    assert max(overlap(mask, shapes(0)[0]) for mask in masks) > 0.8
    del samples[1:]
    driver.annotate_task(client, 1, function, conv_mask_to_poly=True, conf_threshold=0.1)
    assert {one.type.value for one in sent[1]["patched_labeled_data_request"].shapes} == {"polygon"}


@pytest.mark.parametrize("kind", ["mask", "polygon", "rectangle"])
def test_a_shape_is_followed_as_a_session_follows_it(kind: str) -> None:
    function: Any = cvat.create(task="track")
    assert {models.ShapeType(one).value for one in function.spec.supported_shape_types} >= {kind}
    disc = shapes(0)[0]
    ys, xs = np.nonzero(disc)
    box = [float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)]
    points = {
        "mask": encode_mask(disc),
        "rectangle": box,
        "polygon": [
            float(v) for a in np.linspace(0, 2 * np.pi, 60) for v in (90 + 46 * np.cos(a), 105 + 46 * np.sin(a))
        ],
    }[kind]
    images = [function.preprocess_image(Context(), picture) for picture in PICTURES]
    state = function.init_tracking_state(Context(), images[0], cvataa.TrackableShape(type=kind, points=points))
    with Session() as session:
        session.step(images[0])
        session.add(**({"box": box} if kind == "rectangle" else {"mask": disc}))
        for image in images[1:]:
            shape = function.track(Context(), image, state)
            expected = session.step(image).masks[0]
            assert shape.type == kind
            if kind == "rectangle":
                x1, y1, x2, y2 = (int(v) for v in shape.points)
                assert expected[y1:y2, x1:x2].sum() == expected.sum()
            elif kind == "mask":
                assert np.array_equal(decode_mask(shape.points, image_width=WIDTH, image_height=HEIGHT), expected)
            else:
                drawn = cvat._mask_of(shape, (HEIGHT, WIDTH))
                assert overlap(drawn, expected) > 0.95
    black = np.zeros_like(images[0])
    for _ in range(3):
        gone = function.track(Context(), black, state)
    assert gone is None


def test_clicks_give_a_mask() -> None:
    function: Any = cvat.create(task="interact")
    (shape,) = function.detect(None, function.preprocess_image(None, PICTURES[0]), Prompts())
    mask = decode_mask(shape.points, image_width=WIDTH, image_height=HEIGHT)
    assert shape.type == "mask" and overlap(mask, shapes(0)[1]) > 0.8


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(UsageError, match="detect, track, interact"):
        cvat.create(task="sing")  # type: ignore[arg-type]
