"""Prompts that are answered before they are drawn in full: what is kept is what would have been drawn at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from sam2_rule import Case
from serve_toys import TOKEN, Moves, toy_hub
from toys import EncoderCounter, frames, tiny_sam
from vidseg import Session
from vidseg.errors import UsageError
from vidseg.masks.rle import encode
from vidseg.outputs.journal import parse_line
from vidseg.types import Prompt
from vidseg_pipelines.serve import workers
from vidseg_pipelines.serve.app import build_app
from vidseg_pipelines.serve.drafts import DraftingSession
from vidseg_pipelines.serve.hub import Hub
from vidseg_pipelines.serve.served_session import ServedSession
from vidseg_trackers.sam2.tracker import Sam2Tracker

FRAMES = frames(3, 48, 64)
RAW = {"content-type": "application/octet-stream"}
BOX = [5, 5, 30, 25]
CLICK = {"points": [[40, 20]]}
AWAY = {"points": [[10, 10]], "labels": [0]}


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    (tmp_path / "videos").mkdir()
    return toy_hub(tmp_path / "videos", tmp_path / "state")


@pytest.fixture
def client(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(workers, "_PAUSE_S", 3600.0)
    with TestClient(build_app(hub, TOKEN), headers={"authorization": f"Bearer {TOKEN}"}) as client:
        yield client


def push(client: TestClient, path: str, number: int) -> Any:
    rgb = FRAMES[number].rgb
    return client.post(f"{path}/step?width=64&height=48", content=rgb.tobytes(), headers=RAW)


def opened(client: TestClient) -> str:
    path = f"/v1/sessions/{client.post('/v1/sessions', json={}).json()['id']}"
    push(client, path, 0)
    return path


def served_of(hub: Hub, path: str) -> ServedSession:
    return hub.get(path.rsplit("/", 1)[1])


def test_masks_are_those_of_a_session_that_was_waited_for(client: TestClient) -> None:
    path = opened(client)
    with Session(tracker=Moves(), model=tiny_sam()) as own:
        own.step(FRAMES[0].rgb)
        quick = own.preview(box=BOX, quick=True)
        answer = client.post(f"{path}/objects", json={"box": BOX, "label": "dog"}).json()
        assert answer == {"id": own.add(box=BOX, label="dog"), "rle": encode(quick).to_coco()}
        assert client.post(f"{path}/objects", json=CLICK).json()["id"] == own.add(points=[(40, 20)]) == 2
        client.patch(f"{path}/objects/1", json=AWAY)
        own.correct(1, points=[(10, 10)], labels=[0])
        assert client.get(path).json()["objects"] == [1, 2]
        line = client.get(f"{path}/masks").content
        assert parse_line(line).rles == own.masks.rles and parse_line(line).labels == ("dog", None)
        assert parse_line(push(client, path, 1).content).rles == own.step(FRAMES[1].rgb).rles


def test_the_answer_of_a_click_that_waits_is_the_final_mask(client: TestClient) -> None:
    path = opened(client)
    answer = client.post(f"{path}/objects", json={"box": BOX, "quick": False}).json()
    (shown,) = client.get(f"{path}/masks").json()["objects"]
    assert answer["rle"] == shown["rle"]
    quick = client.post(f"{path}/preview", json={"box": [6, 6, 31, 26]}).json()["rle"]
    assert client.post(f"{path}/preview", json={"box": [6, 6, 31, 26], "quick": False}).json()["rle"] != quick


def test_a_click_encodes_nothing_where_there_was_time_before_it(client: TestClient, hub: Hub) -> None:
    path = opened(client)
    counter = EncoderCounter(hub.networks().encoder.sam)  # type: ignore[arg-type]
    served_of(hub, path).prepare()
    assert counter.images == 1
    client.post(f"{path}/objects", json=CLICK)
    client.post(f"{path}/preview", json=CLICK)
    assert counter.images == 1
    client.get(f"{path}/masks")
    assert counter.images > 1


def test_a_session_prepares_while_nobody_calls(hub: Hub) -> None:
    with TestClient(build_app(hub, TOKEN), headers={"authorization": f"Bearer {TOKEN}"}) as client:
        path = opened(client)
        assert client.post(f"{path}/objects", json=CLICK).status_code == 201
        end = time.monotonic() + 60
        session = served_of(hub, path)._session
        while time.monotonic() < end and not session.masks.ids:  # type: ignore[union-attr]
            time.sleep(0.02)
        assert session.masks.ids == (1,)  # type: ignore[union-attr]


def test_a_kill_loses_no_answer(client: TestClient, hub: Hub, tmp_path: Path) -> None:
    path = opened(client)
    client.post(f"{path}/objects", json={"box": BOX})
    client.patch(f"{path}/objects/1", json=AWAY)
    again = toy_hub(hub.root, tmp_path / "state")
    assert served_of(again, path).describe()["objects"] == [1]
    assert served_of(again, path).masks().rles == served_of(hub, path).masks().rles


def test_a_click_need_not_wait_for_what_is_being_drawn(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    served = hub.get(hub.open(None, None, 0))
    served.step(FRAMES[0].rgb.tobytes(), "application/octet-stream", (48, 64))
    apply = DraftingSession.apply

    def slow(self: DraftingSession, prompt: Prompt) -> None:
        finder = self._engine.segmenter.finder
        before = finder.state_dict()
        finder.forget([1, 2])  # as while a frame is computed anew
        finder._highest_id = 0
        begun.set()
        assert go_on.wait(60)
        finder.load_state_dict(before)
        apply(self, prompt)

    assert served.add(box=BOX)[0] == 1
    assert served.add(points=[(40, 20)])[0] == 2
    monkeypatch.setattr(DraftingSession, "apply", slow)
    assert served.correct(1, quick=True, **AWAY).any()
    drawing = threading.Thread(target=served.prepare)
    drawing.start()
    assert begun.wait(60)
    assert served.add(quick=True, points=[(50, 40)])[0] == 3
    assert served.correct(2, quick=True, points=[(45, 5)]).any()
    assert served.describe()["objects"] == [1, 2, 3]
    go_on.set()
    drawing.join()
    assert served.masks().ids == (1, 2, 3)


def test_where_the_full_drawing_finds_nothing_the_answer_counts(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = opened(client)
    apply = DraftingSession.apply

    def blind(self: DraftingSession, prompt: Prompt) -> None:
        if prompt.mask is None or prompt.object_id == 2:
            raise UsageError("no object is found")
        apply(self, prompt)

    monkeypatch.setattr(DraftingSession, "apply", blind)
    answer = client.post(f"{path}/objects", json={"box": BOX, "label": "dog"}).json()
    client.post(f"{path}/objects", json=CLICK)
    (shown,) = client.get(f"{path}/masks").json()["objects"]
    assert (shown["rle"], shown["label"]) == (answer["rle"], "dog")
    assert client.post(f"{path}/objects", json={"points": [[50, 40]]}).json()["id"] == 3, "no id twice"


def test_what_cannot_be_right_is_refused_at_once(client: TestClient) -> None:
    path = opened(client)
    client.post(f"{path}/objects", json={"box": BOX})
    for body, words in (
        ({"box": BOX}, "belongs to object 1 too"),
        ({"points": [[400, 20]]}, "outside the frame"),
        ({"box": BOX, "label": "a\nb"}, "label"),
        ({}, "empty prompt"),
    ):
        answer = client.post(f"{path}/objects", json=body)
        assert answer.status_code == 422 and words in answer.json()["error"]
    assert client.get(path).json()["objects"] == [1]


def test_a_tracker_that_draws_clicks_itself_is_asked_at_once() -> None:
    with DraftingSession(tracker=Sam2Tracker(Case("video_correction").network()), model=tiny_sam()) as session:
        assert not session.takes_drafts
        session.step(FRAMES[0].rgb)
        session.prepare()
        quick, full = session.preview(box=BOX, quick=True), session.preview(box=BOX)
        assert np.array_equal(quick, full)
