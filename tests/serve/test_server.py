"""Sessions over HTTP: the masks of a session of one's own, kept through rests, restarts and errors."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

import paths
from serve_toys import TOKEN, Moves, toy_hub
from toys import frames, tiny_sam
from ui_toys import toy_video
from vidseg import Client, Session
from vidseg.errors import InputError, UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import encode
from vidseg.outputs.journal import parse_line
from vidseg_pipelines.serve.app import build_app
from vidseg_pipelines.serve.batching import BatchedEncoder
from vidseg_pipelines.serve.bodies import MasksAnswer
from vidseg_pipelines.serve.cores import Cores
from vidseg_pipelines.serve.hub import Hub
from vidseg_pipelines.serve.served_session import KEPT_CALLS, ServedSession

FRAMES = frames(KEPT_CALLS + 6, 48, 64)
BOX = [5, 5, 30, 25]
CLICK = {"points": [[40, 20]]}


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    (tmp_path / "videos").mkdir()
    toy_video(tmp_path / "videos" / "square.mp4", 8)
    return toy_hub(tmp_path / "videos", tmp_path / "state", sessions=3, in_memory=2, frames=100, body=1 << 20)


@contextmanager
def client_of(hub: Hub) -> Iterator[TestClient]:
    with TestClient(build_app(hub, TOKEN), headers={"authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@pytest.fixture
def client(hub: Hub) -> Iterator[TestClient]:
    with client_of(hub) as client:
        yield client


def opened(client: TestClient, **body: Any) -> str:
    answer = client.post("/v1/sessions", json=body)
    assert answer.status_code == 201, answer.text
    return f"/v1/sessions/{answer.json()['id']}"


def push(client: TestClient, path: str, number: int, kind: str = "png") -> Any:
    data = io.BytesIO()
    Image.fromarray(FRAMES[number].rgb).save(data, kind)
    return client.post(f"{path}/step", content=data.getvalue(), headers={"content-type": f"image/{kind}"})


def error_of(answer: Any, status: int) -> str:
    assert answer.status_code == status, (answer.status_code, answer.text)
    text = answer.json()["error"]
    assert "\n" not in text
    return str(text)


def same(a: FrameMasks, b: FrameMasks) -> bool:
    return a.ids == b.ids and a.labels == b.labels and np.array_equal(a.label_map, b.label_map)


def test_a_session_gives_the_masks_of_a_session_of_ones_own(client: TestClient) -> None:
    path = opened(client)
    with Session(tracker=Moves(), model=tiny_sam()) as own:
        for number in range(3):
            answer = push(client, path, number)
            assert same(parse_line(answer.content).with_hw((48, 64)), own.step(FRAMES[number].rgb))
            if number == 0:
                assert client.post(f"{path}/objects", json={"box": BOX, "label": "dog"}).json()["id"] == 1
                own.add(box=tuple(BOX), label="dog")
            if number == 1:
                client.patch(f"{path}/objects/1", json={"points": [[10, 10]], "labels": [0]})
                own.correct(1, points=[(10, 10)], labels=[0])
            shown = client.get(f"{path}/masks")
            assert same(parse_line(shown.content).with_hw((48, 64)), own.masks)
        assert client.get(path).json()["objects"] == [1]
        client.delete(f"{path}/objects/1")
        assert client.get(path).json()["objects"] == []


def test_masks_come_as_label_map_run_lengths_and_polygons(client: TestClient) -> None:
    path = opened(client)
    push(client, path, 0)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 10:30] = 1
    body = {"mask": {"size": [48, 64], "counts": _counts(mask)}}
    assert client.post(f"{path}/objects", json=body).json() == {"id": 1, "rle": encode(mask.astype(bool)).to_coco()}
    png = client.get(f"{path}/masks", headers={"accept": "image/png"})
    assert png.headers["content-type"] == "image/png" and png.headers["x-frame"] == "0"
    assert np.array_equal(np.array(Image.open(io.BytesIO(png.content))), mask)
    (found,) = client.get(f"{path}/masks").json()["objects"]
    assert found["id"] == 1 and found["rle"]["size"] == [48, 64] and found["box"] == [10, 10, 30, 20]
    assert found["trust"] == 1.0
    (found,) = client.get(f"{path}/masks?form=polygons").json()["objects"]
    assert sorted(map(tuple, found["polygons"][0])) == [(10, 10), (10, 19), (29, 10), (29, 19)]
    shown = client.post(f"{path}/preview", json={"box": BOX}).json()
    assert shown["rle"]["size"] == [48, 64]
    assert client.get(path).json()["objects"] == [1]


def _counts(mask: np.ndarray) -> list[int]:
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    return [int(n) for n in np.diff([0, *edges, flat.size])]


def test_the_video_of_a_session_is_followed_both_ways(client: TestClient) -> None:
    path = opened(client, video="square.mp4")
    assert client.get(path).json() | {"id": ""} == {
        "id": "", "frame": -1, "objects": [], "frames": 8, "width": 160, "height": 96, "fps": 25.0,
    }  # fmt: skip
    for number in range(4):
        assert client.post(f"{path}/step").json()["frame"] == number
    client.post(f"{path}/objects", json={"box": [43, 30, 83, 66]})
    back = [json.loads(line) for line in client.post(f"{path}/propagate", json={"direction": "backward"}).iter_lines()]
    assert [line["frame"] for line in back] == [2, 1, 0] and all(line["objects"] for line in back)
    on = [json.loads(line) for line in client.post(f"{path}/propagate", json={"frames": 2}).iter_lines()]
    assert [line["frame"] for line in on] == [4, 5]
    assert client.get(f"{path}/masks?frame=1").json()["objects"][0]["rle"] == back[1]["objects"][0]["rle"]
    rest = client.post(f"{path}/propagate", json={}).text.splitlines()
    assert len(rest) == 2
    assert "ends with frame 7" in error_of(client.post(f"{path}/step"), 404)
    assert all(one["trust"] <= 1 for one in client.get(f"{path}/suggest?k=2").json()["suggestions"])
    assert error_of(client.get(f"{path}/suggest?k=0"), 422)
    exported = client.get(f"{path}/export?to=coco")
    assert len(json.loads(exported.content)["annotations"]) == 8
    assert zipfile.ZipFile(io.BytesIO(client.get(f"{path}/export?to=davis").content)).namelist()


def test_going_back_with_one_object_keeps_the_results_of_others(client: TestClient) -> None:
    path = opened(client, video="square.mp4")
    for object_id, place in ((1, np.s_[5:20, 40:60]), (2, np.s_[60:80, 40:60])):
        mask = np.zeros((96, 160), np.bool_)
        mask[place] = True
        client.post(f"{path}/step")
        client.post(f"{path}/step")
        client.post(f"{path}/objects", json={"mask": encode(mask).to_coco()})
        client.post(f"{path}/propagate", json={"direction": "backward"})
        client.delete(f"{path}/objects/{object_id}")
    found = client.get(f"{path}/masks?frame=0").json()["objects"]
    assert [one["id"] for one in found] == [1, 2] and all(one["rle"] for one in found)


def test_a_restart_loses_nothing_that_was_answered(hub: Hub, tmp_path: Path) -> None:
    with client_of(hub) as client:
        path = opened(client)
        push(client, path, 0)
        client.post(f"{path}/objects", json={"box": BOX, "label": "dog"})
        for number in range(1, KEPT_CALLS + 3):  # beyond the first saved state
            push(client, path, number)
        client.patch(f"{path}/objects/1", json=CLICK)
        shown, following = client.get(f"{path}/masks").json(), KEPT_CALLS + 3
        expected = push(client, path, following).json()
    folder = next((tmp_path / "state" / "sessions").iterdir())
    assert len(list(folder.glob("state-*"))) == 1 and len(list(folder.glob("frames-*/*"))) < KEPT_CALLS
    calls = next(folder.glob("calls-*.jsonl"))
    lines = calls.read_bytes().splitlines(keepends=True)
    calls.write_bytes(b"".join(lines[:-1]) + lines[-1][:9])  # killed while it wrote: was never answered
    with client_of(toy_hub(hub.root, tmp_path / "state")) as client:
        assert client.get("/v1/sessions").json() == {"sessions": [path.rsplit("/", 1)[1]]}
        assert client.get(f"{path}/masks").json() == shown
        assert push(client, path, following).json() == expected
        assert client.post(f"{path}/objects", json=CLICK).json()["id"] == 2


def test_what_is_done_again_leaves_no_masks_behind(client: TestClient, hub: Hub, tmp_path: Path) -> None:
    path = opened(client)
    push(client, path, 0)
    client.post(f"{path}/objects", json={"box": BOX})
    push(client, path, 1)
    state = client.get(f"{path}/state").content
    push(client, path, 2)
    client.put(f"{path}/state", content=state)
    assert client.get(f"{path}/masks?frame=1").json()["objects"], "no frame is shown, but there were some"
    again = json.loads(client.get(f"{path}/export?to=coco").content)
    assert len(again["images"]) == 2, "frame 2 comes again"
    served = hub.get(path.rsplit("/", 1)[1])
    served.store.begin_generation(None, None)  # a reset, and a kill before the masks were forgotten
    assert served_anew(hub, tmp_path, path).suggest(5) == []
    client.post(f"{path}/reset")
    push(client, path, 0)
    assert len(json.loads(client.get(f"{path}/export?to=coco").content)["annotations"]) == 0


def served_anew(hub: Hub, tmp_path: Path, path: str) -> ServedSession:
    return toy_hub(hub.root, tmp_path / "state").get(path.rsplit("/", 1)[1])


def test_sessions_that_rest_come_back(client: TestClient, hub: Hub) -> None:
    paths_ = [opened(client) for _ in range(3)]
    for path in paths_:
        push(client, path, 0)
        client.post(f"{path}/objects", json={"box": BOX})
    first = client.get(f"{paths_[0]}/masks").json()
    for path in paths_:
        push(client, path, 1)
    assert hub.in_memory <= 2
    assert client.get(f"{paths_[0]}/masks?frame=0").json() == first
    assert "vidseg_sessions 3.0" in client.get("/metrics").text


def test_limits_are_answered_by_what_to_do(client: TestClient, hub: Hub) -> None:
    for _ in range(3):
        path = opened(client)
    assert "close one" in error_of(client.post("/v1/sessions", json={}), 429)
    assert client.delete(path).status_code == 200
    path = opened(client)
    assert "at most 1048576" in error_of(client.post(f"{path}/step", content=b"x" * (1 << 20 | 1)), 413)
    hub.get(path.rsplit("/", 1)[1]).store.meta["frames_limit"] = 1
    push(client, path, 0)
    assert "open another one" in error_of(push(client, path, 1), 429)


def test_a_promised_length_over_the_limit_is_refused_before_the_body(hub: Hub) -> None:
    read: list[str] = []

    async def receive() -> Any:
        read.append("body")
        return {"type": "http.request", "body": b"", "more_body": False}

    async def ask() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"authorization", f"Bearer {TOKEN}".encode()), (b"content-length", b"99999999")]
        scope = {"type": "http", "method": "POST", "path": "/v1/sessions/x/step", "headers": headers}
        await build_app(hub, TOKEN)({**scope, "query_string": b"", "raw_path": b"", "app": None}, receive, send)
        return sent

    import asyncio

    sent = asyncio.run(ask())
    assert sent[0]["status"] == 413 and not read


def test_who_has_no_token_gets_nothing(hub: Hub) -> None:
    with TestClient(build_app(hub, TOKEN)) as client:
        for path in ("/v1/sessions", "/metrics", "/openapi.json", "/label-studio/health"):
            assert error_of(client.get(path), 401)
            assert error_of(client.get(path, headers={"authorization": f"Bearer {TOKEN[:-1]}"}), 401)
        assert client.get("/livez").json() == {"status": "ok"}
        assert client.get("/readyz").status_code == 503  # nobody has loaded the networks
        basic = base64.b64encode(f"vidseg:{TOKEN}".encode()).decode()
        answer = client.get("/label-studio/health", headers={"authorization": f"Basic {basic}"})
        assert answer.json()["status"] == "UP"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/v1/sessions/nothere/masks", None, 404, "not open"),
        ("GET", "/v1/nothing", None, 404, "Not Found"),
        ("POST", "/v1/sessions", {"video": "../../etc/passwd"}, 403, "root"),
        ("POST", "/v1/sessions", {"video": "/etc/passwd"}, 403, "root"),
        ("POST", "/v1/sessions", {"video": "missing.mp4"}, 422, "no such file"),
        ("POST", "/v1/sessions", {"video": ""}, 422, "video: String should have at least 1 character"),
        ("POST", "/v1/sessions", {"vidoe": "a.mp4"}, 422, "vidoe"),
        ("POST", "/v1/sessions", {"max_objects": 0}, 422, "max_objects"),
        ("POST", "{s}/objects", {"box": BOX}, 422, "no frame yet"),
        ("POST", "{s}/propagate", {}, 422, "step"),
        ("POST", "{s}/step", None, 422, "send one"),
        ("PUT", "/v1/uploads/evil.sh", None, 422, "video"),
        ("PUT", "{s}/state", None, 422, "state"),
    ],
)
def test_wrong_requests_are_one_line(
    client: TestClient, method: str, path: str, body: Any, status: int, words: str
) -> None:
    answer = client.request(method, path.replace("{s}", opened(client)), json=body)
    assert words in error_of(answer, status)


def test_wrong_calls_leave_a_session_as_it_was(client: TestClient) -> None:
    path = opened(client)
    push(client, path, 0)
    client.post(f"{path}/objects", json={"box": BOX})
    before = client.get(f"{path}/masks").json()
    wide = client.post(f"{path}/step?width=10&height=10", content=bytes(300))
    assert "64x48" in error_of(wide, 422)
    for answer, status in (
        (client.post(f"{path}/step?width=10&height=10", content=bytes(299)), 422),
        (client.post(f"{path}/step", content=b"no image", headers={"content-type": "image/png"}), 422),
        (client.post(f"{path}/step", content=b"x", headers={"content-type": "text/plain"}), 422),
        (client.patch(f"{path}/objects/7", json=CLICK), 404),
        (client.delete(f"{path}/objects/7"), 404),
        (client.get(f"{path}/masks?frame=5"), 404),
        (client.post(f"{path}/objects", json={}), 422),
        (client.post(f"{path}/objects", json={"box": [500, 500, 600, 600]}), 422),
        (client.get(f"{path}/export?to=nothing"), 422),
        (client.get(f"{path}/export?to=overlay"), 422),
    ):
        error_of(answer, status)
    assert client.get(f"{path}/masks").json() == before


def test_json_that_is_sent_as_a_form_is_told_the_header(client: TestClient) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}  # of `curl -d`
    answer = client.post("/v1/sessions", content=b'{"video": "square.mp4"}', headers=form)
    assert "with the header content-type: application/json" in error_of(answer, 422)


def test_a_full_disk_changes_nothing(client: TestClient, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidseg.errors import OutputError
    from vidseg_pipelines.serve.store import SessionStore

    path = opened(client)
    push(client, path, 0)

    def full(self: SessionStore, call: dict[str, Any]) -> None:
        raise OutputError("calls: no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(SessionStore, "append", full)
        assert "no space" in error_of(client.post(f"{path}/objects", json={"box": BOX}), 507)
    assert client.get(path).json()["objects"] == []
    assert client.post(f"{path}/objects", json={"box": BOX}).json()["id"] == 1


def test_frames_over_a_socket(client: TestClient) -> None:
    path = opened(client)
    with client.websocket_connect(f"{path}/frames?kind=image/png") as socket:
        for number in range(2):
            data = io.BytesIO()
            Image.fromarray(FRAMES[number].rgb).save(data, "png")
            socket.send_bytes(data.getvalue())
            assert socket.receive_json()["frame"] == number
        socket.send_bytes(b"nothing")
        assert "not a whole image" in socket.receive_json()["error"]
    assert client.get(path).json()["frame"] == 1


def test_an_upload_is_opened(client: TestClient, tmp_path: Path) -> None:
    data = toy_video(tmp_path / "mine.mp4", 3).read_bytes()
    video = client.put("/v1/uploads/mine.mp4", content=data).json()["video"]
    assert client.get(opened(client, video=video)).json()["frames"] == 3
    assert error_of(client.put("/v1/uploads/broken.mp4", content=data[:200]), 422).startswith("broken.mp4: ")
    png = io.BytesIO()
    Image.fromarray(FRAMES[0].rgb).save(png, "png")
    assert "a picture, not a video" in error_of(client.put("/v1/uploads/x.mp4", content=png.getvalue()), 422)
    assert [p.name for p in (tmp_path / "state" / "uploads").iterdir()] == ["mine.mp4"]


def test_routes_are_typed(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert "/v1/sessions/{session_id}/objects/{object_id}" in described["paths"]
    schemas = described["components"]["schemas"]
    assert schemas["SessionBody"]["properties"]["video"] and schemas["SessionAnswer"]["properties"]["fps"]
    path = opened(client)
    push(client, path, 0)
    client.post(f"{path}/objects", json={"box": BOX})
    for form in ("rle", "polygons"):
        answer = client.get(f"{path}/masks?form={form}").json()
        MasksAnswer.model_validate(answer, extra="forbid")


def test_label_studio_gets_brushes_and_tracks(client: TestClient, hub: Hub) -> None:
    Image.fromarray(FRAMES[0].rgb).save(hub.root / "one.png")
    assert client.post("/label-studio/setup", json={"project": "1", "schema": ""}).json()["model_version"]
    config = (
        '<View><Image name="img" value="$photo"/><BrushLabels name="tag" toName="img"><Label value="Dog"/>'
        '</BrushLabels><KeyPointLabels name="kp" toName="img" smart="true"><Label value="Dog"/></KeyPointLabels></View>'
    )
    click = {
        "type": "keypointlabels", "id": "a", "to_name": "img",
        "value": {"x": 30, "y": 40, "width": 0.5, "keypointlabels": ["Dog"]},
    }  # fmt: skip
    body = {
        "tasks": [{"id": 1, "data": {"photo": "/data/local-files/?d=one.png"}}],
        "label_config": config,
        "params": {"context": {"result": [click]}},
    }
    (prediction,) = client.post("/label-studio/predict", json=body).json()["results"]
    (brush,) = prediction["result"]
    assert brush["from_name"] == "tag" and brush["to_name"] == "img" and brush["value"]["brushlabels"] == ["Dog"]
    assert (brush["original_width"], brush["original_height"]) == (64, 48) and brush["value"]["format"] == "rle"
    assert client.post("/label-studio/predict", json={**body, "params": None}).json()["results"][0]["result"] == []
    outside = {**body, "tasks": [{"data": {"photo": "/data/local-files/?d=../../x.png"}}]}
    error_of(client.post("/label-studio/predict", json=outside), 403)
    for wrong, words in (
        ("x", "params.context.result: Input should be a valid list"),
        ([{"type": "keypointlabels"}], "not as Label Studio sends it"),
        ([click | {"value": {"x": "a", "y": 5}}], "not as Label Studio sends it"),
    ):
        strange = {**body, "params": {"context": {"result": wrong}}}
        assert words in error_of(client.post("/label-studio/predict", json=strange), 422)
    beside = {**body, "params": {"context": {"result": [click | {"value": {"x": -5, "y": 5}}]}}}
    assert "outside the frame" in error_of(client.post("/label-studio/predict", json=beside), 422)
    entry = {"frame": 1, "x": 25, "y": 31, "width": 25, "height": 38, "enabled": True, "rotation": 0, "time": 0}
    track = {"type": "videorectangle", "id": "t", "value": {"sequence": [entry], "labels": ["Dog"]}}
    body = {
        "tasks": [{"data": {"clip": "square.mp4"}}],
        "label_config": '<View><Video name="video" value="$clip"/></View>',
        "params": {"context": {"result": [track]}},
    }
    (prediction,) = client.post("/label-studio/predict", json=body).json()["results"]
    sequence = prediction["result"][0]["value"]["sequence"]
    assert [one["frame"] for one in sequence] == list(range(1, 9)) and sequence[0] == entry


@contextmanager
def server(root: Path, state: Path) -> Iterator[str]:
    """A server in a process of its own, killed at the end."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(paths.HELPERS), *sys.path])}
    child = subprocess.Popen(
        [sys.executable, str(paths.HELPERS / "serve_toys.py"), str(root), str(state)],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert child.stdout is not None
    try:
        yield child.stdout.readline().strip()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def test_the_client_is_a_session(hub: Hub, tmp_path: Path) -> None:
    with (
        server(hub.root, tmp_path / "other") as url,
        Client(url, token=TOKEN) as there,
        Session(tracker=Moves(), model=tiny_sam()) as here,
    ):
        for number in range(4):
            assert same(there.step(FRAMES[number].rgb), here.step(FRAMES[number].rgb))
            if number == 0:
                assert there.add(box=BOX, label="dog") == here.add(box=BOX, label="dog") == 1
                assert there.add(points=[(40, 20)]) == here.add(points=[(40, 20)]) == 2
                assert np.array_equal(there.preview(1, points=[(9, 9)]), here.preview(1, points=[(9, 9)]))
            if number == 1:
                there.correct(1, points=[(10, 10)], labels=[0])
                here.correct(1, points=[(10, 10)], labels=[0])
            if number == 2:
                there.remove(2)
                here.remove(2)
                saved = there.state_dict()
            assert same(there.masks, here.masks) and there.objects == here.objects
        with pytest.raises(UsageError, match="64x48"):
            there.step(FRAMES[0].rgb[:20])
        last = here.masks
        for session in (there, here):  # a state goes both ways
            session.load_state_dict(saved)
            saved = session.state_dict()
            assert session.next_index == 3 and same(session.step(FRAMES[3].rgb), last)
        with pytest.raises(UsageError, match="Bearer TOKEN"), Client(url, token="wrong-token"):
            pass
    with pytest.raises(UsageError, match="closed"):
        there.step(FRAMES[0].rgb)


def test_what_goes_wrong_on_the_way_to_a_server_is_one_error(hub: Hub, tmp_path: Path) -> None:
    for number in range(4):
        (hub.root / "stills").mkdir(exist_ok=True)
        Image.fromarray(FRAMES[number].rgb).save(hub.root / "stills" / f"{number}.png")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"token": "two\nlines"}, "token: one line"),
        ({"token": "\xfc"}, "token: one line"),
        ({"form": "bmp"}, "form 'bmp': allowed are raw, png, jpeg"),
        ({"timeout": 0}, "timeout 0: seconds"),
        ({"url": "http://localhost:port"}, "url 'http://localhost:port': an address"),
    ]
    with server(hub.root, tmp_path / "other") as url:
        for given, message in wrong:
            with pytest.raises(UsageError, match=message):
                Client(**{"url": url, "token": TOKEN, **given})
        session = Client(url, token=f"{TOKEN}\n", video="stills")  # as it is read from a file
        assert session.step().frame_index == 0
        (hub.root / "stills" / "2.png").write_bytes(b"no picture")
        came = []
        with pytest.raises(InputError, match=r"2\.png"):
            came.extend(masks.frame_index for masks in session.propagate())
        assert session.next_index == 2 and came == [1]
    with pytest.raises(InputError, match=url):
        list(session.propagate())
    with pytest.raises(RuntimeError, match="of the user"), session:
        raise RuntimeError("of the user")
    assert repr(session).endswith("closed)")
    with pytest.raises(UsageError, match="the session is closed"):
        list(session.propagate())


def test_sessions_at_the_same_time_share_passes_and_keep_their_masks(hub: Hub) -> None:
    networks = hub.networks()
    results: dict[int, list[FrameMasks]] = {}

    def work(name: int) -> None:
        session = networks.session()
        results[name] = []
        for frame in FRAMES[:6]:
            masks = session.step(frame.rgb)
            if not masks.ids:
                session.add(box=BOX)
                masks = session.masks
            results[name].append(masks)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(a, b) for n in range(1, 4) for a, b in zip(results[0], results[n], strict=True))
    assert networks.encoder.passes <= networks.encoder.images


class Slow:
    """A network whose first pass waits for something; it notes the threads of every pass."""

    device = torch.device("cpu")

    def __init__(self, awaited: Callable[[], bool]) -> None:
        self.awaited = awaited
        self.threads: list[int] = []
        self.sizes: list[int] = []

    def encode(self, images: list[Any], side: int | None = None) -> list[Any]:
        self.threads.append(torch.get_num_threads())
        self.sizes.append(len(images))
        while len(images) == 1 and images[0] == 0 and not self.awaited():
            time.sleep(0.001)
        return list(images)


def encode_at_the_same_time(encoder: BatchedEncoder, slow: Slow, cores: Cores, count: int) -> None:
    """One image per thread; the first thread is in its pass when the others come."""

    def work(name: int) -> None:
        with cores.working():
            assert encoder.encode([name]) == [name]  # type: ignore[list-item, comparison-overlap]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
        while not slow.threads:
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert not cores._working


def test_who_waits_for_the_only_pass_joins_the_next_one() -> None:
    cores = Cores(torch.device("cpu"), 1)
    encoder: Any = BatchedEncoder(slow := Slow(lambda: len(encoder._waiting) == 2), cores)  # type: ignore[arg-type]
    encode_at_the_same_time(encoder, slow, cores, 3)
    assert slow.sizes == [1, 2], "the second and the third share a pass"
    assert (encoder.passes, encoder.images) == (2, 3)


def test_every_core_has_a_pass_and_who_waits_leaves_its_core() -> None:
    cores = Cores(torch.device("cpu"), 2)
    encoder: Any = BatchedEncoder(slow := Slow(lambda: sum(slow.sizes) == 4), cores)  # type: ignore[arg-type]
    encode_at_the_same_time(encoder, slow, cores, 4)
    assert sum(slow.sizes) == 4
    assert slow.threads[0] == 2 and set(slow.threads[1:]) == {1}, "one computes beside the first, at any time"
