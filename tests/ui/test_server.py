"""The page's server: who is let in, what can be read, what is said when something goes wrong."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra [ui] is not installed")
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import paths
from media import file_size_limit
from ui_toys import toy_desk, toy_video
from vidseg.errors import InputError
from vidseg.masks.rle import decode, from_coco
from vidseg.outputs.journal import read_journal
from vidseg_pipelines.cli import main
from vidseg_pipelines.ui.library import Library
from vidseg_pipelines.ui.server import STATIC, build_app

TOKEN = "a-secret"
BASE = "http://127.0.0.1:8000"
SOCKETS = "ws://127.0.0.1:8000"


@contextmanager
def client_of(path: Path | None, output: Path, *, upload_limit: int = 1 << 30) -> Iterator[TestClient]:
    app = build_app(toy_desk(path, output), TOKEN, upload_limit=upload_limit)
    with TestClient(app, base_url=BASE, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return toy_video(tmp_path / "square.mp4")


@pytest.fixture
def client(video: Path, tmp_path: Path) -> Iterator[TestClient]:
    with client_of(video, tmp_path / "runs") as client:
        yield client


class Page:
    """A window, as the server sees it."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    def ask(self, do: str, **fields: Any) -> None:
        self.socket.send_json({"do": do, **fields})

    def until(self, kind: str) -> dict[str, Any]:
        while True:
            event = self.socket.receive_json()
            if event["type"] == kind:
                return dict(event)
            assert event["type"] != "error" or kind == "error", event

    def ended(self) -> dict[str, Any]:
        while True:
            event = self.until("run")
            if event["state"] in ("done", "cancelled", "failed"):
                return event


@contextmanager
def page_of(client: TestClient, key: str = "square.mp4") -> Iterator[Page]:
    with client.websocket_connect(f"{SOCKETS}/{TOKEN}/socket") as socket:
        page = Page(socket)
        page.ask("open", key=key)
        yield page


@pytest.mark.parametrize(
    "path", ["/", "/static/style.css", "/static/js/main.js", "/clips/square.mp4/frames/0.jpg", "/x"]
)
def test_without_the_token_nothing_is_served(client: TestClient, path: str) -> None:
    for asked in (path, f"{path}?token=", f"{path}?token=a-secre", f"/a-secret-not{path}"):
        assert client.get(asked).status_code == 403, asked
    assert client.put("/uploads/x.mp4", content=b"").status_code == 403


def test_a_socket_without_the_token_is_refused(client: TestClient) -> None:
    for path in ("/socket", "/socket?token=wrong", "/wrong/socket"):
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(SOCKETS + path):
            pass


def test_with_the_token_the_page_and_all_that_it_names_are_served(client: TestClient) -> None:
    page = client.get("/", params={"token": TOKEN})
    assert page.status_code == 200
    assert f'<base href="/{TOKEN}/">' in page.text
    names = re.findall(r'(?:src|href)="(static/[^"]+)"', page.text)
    assert {"static/style.css", "static/js/main.js"} <= set(names)
    scripts = [f"static/js/{path.name}" for path in (STATIC / "js").iterdir()]
    for name in [*names, *scripts]:
        assert client.get(f"/{TOKEN}/{name}").status_code == 200, name


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""])
def test_a_foreign_host_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", params={"token": TOKEN}, headers={"host": host}).status_code == 403


def test_a_foreign_page_is_refused(client: TestClient) -> None:
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(f"{SOCKETS}/{TOKEN}/socket", headers={"origin": "http://evil.example"}),
    ):
        pass


def test_nothing_that_is_served_names_another_host(client: TestClient) -> None:
    for path in STATIC.rglob("*"):
        if path.is_file():
            addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text("utf-8"))
            assert [a for a in addresses if a != "http://www.w3.org"] == [], path.name
    policy = client.get("/", params={"token": TOKEN}).headers["content-security-policy"]
    assert "default-src 'self'" in policy


@pytest.mark.parametrize(
    "path", ["static/../server.py", "static/%2e%2e/server.py", "clips/../../etc/passwd/frames/0.jpg"]
)
def test_other_files_cannot_be_read(client: TestClient, path: str) -> None:
    assert client.get(f"/{TOKEN}/{path}").status_code in (403, 404)


def test_only_what_lies_below_the_path_can_be_opened(tmp_path: Path) -> None:
    outside = toy_video(tmp_path / "outside.mp4", 3)
    (tmp_path / "videos").mkdir()
    toy_video(tmp_path / "videos" / "inside.mp4", 3)
    (tmp_path / "videos" / "link.mp4").symlink_to(outside)
    with client_of(tmp_path / "videos", tmp_path / "runs") as client, page_of(client, "inside.mp4") as page:
        page.ask("list")
        assert page.until("clips")["clips"] == ["inside.mp4"]
        for key in ("../outside.mp4", "link.mp4", str(outside)):
            page.ask("open", key=key)
            assert "no such video" in page.until("error")["text"]


def test_a_frame_is_a_picture_of_its_size(client: TestClient) -> None:
    import cv2

    with page_of(client) as page:
        page.until("clip")
        answer = client.get(f"/{TOKEN}/clips/square.mp4/frames/3.jpg")
        assert answer.headers["content-type"] == "image/jpeg"
        picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape == (96, 160, 3)
        beyond = client.get(f"/{TOKEN}/clips/square.mp4/frames/24.jpg")
        assert beyond.status_code == 422
        assert "has 24 frames" in beyond.json()["error"]


def test_a_box_gives_a_mask_and_a_run_brings_it_to_every_frame(client: TestClient, tmp_path: Path) -> None:
    with page_of(client) as page:
        clip = page.until("clip")
        assert (clip["frames"], clip["width"], clip["height"], clip["mine"]) == (24, 160, 96, True)
        page.ask("box", frame=4, id=None, box=[40, 25, 90, 70])
        assert page.until("drawn")["id"] == 1
        page.until("refined")
        objects = client.get(f"/{TOKEN}/clips/square.mp4/frames/4.json").json()["objects"]
        assert decode(from_coco(objects[0]["rle"])).any()
        page.ask("rename", id=1, name="the  square\n")
        page.until("changed")
        page.ask("run", frame=4, direction="both")
        assert page.ended()["state"] == "done"
    journal = list(read_journal(tmp_path / "runs" / "square" / "masks.jsonl"))
    assert [masks.frame_index for masks in journal] == list(range(24))
    assert all(masks.ids == (1,) and masks.labels == ("the square",) for masks in journal)
    measured = [masks.signals[0] for masks in journal]
    assert [signals.since if signals else None for signals in measured] == [abs(n - 4) for n in range(24)]


def test_signals_of_other_objects_stay_when_one_is_drawn(client: TestClient, tmp_path: Path) -> None:
    stroke = {"radius": 8, "erase": False, "id": None}
    with page_of(client) as page:
        page.ask("stroke", frame=0, points=[[50, 40], [70, 50]], **stroke)
        page.until("drawn")
        page.ask("run", frame=0, direction="forward")
        page.ended()
        page.ask("stroke", frame=5, points=[[120, 80], [140, 80]], **stroke)
        page.until("drawn")
        page.ask("run", frame=5, direction="forward", only=2)
        page.ended()
    journal = list(read_journal(tmp_path / "runs" / "square" / "masks.jsonl"))
    assert [s.since for s in journal[5].signals if s] == [5, 0]
    assert [s.since for s in journal[9].signals if s] == [9, 4]


def test_what_the_page_made_can_be_exported_by_the_command_line(client: TestClient, tmp_path: Path) -> None:
    with page_of(client) as page:
        page.ask("stroke", frame=0, id=None, points=[[50, 40], [70, 50]], radius=8, erase=False)
        page.until("drawn")
        page.ask("run", frame=0, direction="forward")
        page.ended()
    assert main(["export", str(tmp_path / "runs" / "square"), "--to", "davis", "--output", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out" / "davis").glob("*.png"))) == 24


def test_undo_takes_a_run_back_and_redo_does_it_again(client: TestClient, tmp_path: Path) -> None:
    with page_of(client) as page:
        page.ask("stroke", frame=2, id=None, points=[[50, 40]], radius=8, erase=False)
        page.until("drawn")
        page.ask("run", frame=2, direction="forward")
        page.ended()
        page.ask("undo")
        while len(page.until("changed")["frames"]) < 21:
            pass
        assert client.get(f"/{TOKEN}/clips/square.mp4/frames/9.json").json()["objects"] == []
        page.ask("redo")
        assert len(page.until("changed")["frames"]) == 21
        assert len(client.get(f"/{TOKEN}/clips/square.mp4/frames/9.json").json()["objects"]) == 1
        page.ask("undo")
        page.until("changed")
        page.ask("undo")
        assert page.until("changed")["objects"] == []
        page.ask("undo")
        assert "nothing to undo" in page.until("error")["text"]


def test_two_windows_do_not_fight_the_second_is_told(client: TestClient) -> None:
    with page_of(client) as first, page_of(client) as second:
        assert first.until("clip")["mine"] is True
        assert second.until("clip")["mine"] is False
        second.ask("box", frame=0, id=None, box=[40, 25, 90, 70])
        assert "open in another window" in second.until("error")["text"]
        second.ask("take")
        assert second.until("holder")["mine"] is True
        assert first.until("holder")["mine"] is False
        second.ask("stroke", frame=0, id=None, points=[[50, 40]], radius=8, erase=False)
        assert first.until("changed")["frames"] == [0]


def test_frames_are_shown_while_the_networks_are_loaded(video: Path, tmp_path: Path) -> None:
    desk, loading, may_go_on = toy_desk(video, tmp_path / "runs"), threading.Event(), threading.Event()
    load, loaded = desk.engine._load, []

    def slow_load() -> Any:
        loading.set()
        loaded.append(may_go_on.wait(120))
        return load()

    desk.engine._load = slow_load
    with TestClient(build_app(desk, TOKEN), base_url=BASE) as client, page_of(client) as page:
        page.until("marks")
        page.ask("look", frame=0)
        assert loading.wait(120)
        try:
            with page_of(client) as second:
                assert second.until("clip")["frames"] == 24
                assert client.get(f"/{TOKEN}/clips/square.mp4/frames/5.jpg").status_code == 200
                assert loaded == []
                may_go_on.set()
        finally:
            may_go_on.set()


def test_a_folder_that_another_process_holds_is_not_touched(video: Path, tmp_path: Path) -> None:
    from vidseg.outputs.folder import claimed

    with claimed(tmp_path / "runs" / "square"), client_of(video, tmp_path / "runs") as client, page_of(client) as page:
        assert "in use by another run" in page.until("error")["text"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"do": "click", "x": 400, "y": 5, "positive": True}, "outside the picture"),
        ({"do": "click", "x": -1, "y": 5, "positive": True}, "outside the picture"),
        ({"do": "click", "x": 5, "y": 5, "positive": False}, "select one first"),
        ({"do": "box", "box": [5, 5, 6, 6]}, "too small"),
        ({"do": "box", "box": [500, 5, 600, 60]}, "outside the picture"),
        ({"do": "stroke", "points": [[-90, -90]], "radius": 3, "erase": False}, "outside the picture"),
        ({"do": "run", "direction": "forward"}, "click on one first"),
        ({"do": "click", "x": "a", "y": None}, "cannot be read"),
        ({"do": "fly"}, "unknown request"),
    ],
)
def test_what_cannot_be_done_is_said_in_words_and_changes_nothing(
    client: TestClient, tmp_path: Path, fields: dict[str, Any], text: str
) -> None:
    with page_of(client) as page:
        page.until("clip")
        page.ask(frame=0, id=None, **fields)
        assert text in page.until("error")["text"]
    assert list(read_journal(tmp_path / "runs" / "square" / "masks.jsonl")) == []


def test_all_windows_say_while_models_are_loaded(client: TestClient) -> None:
    with page_of(client, "square.mp4") as page, page_of(client, "square.mp4") as other:
        assert page.until("clip")["loading"] is False
        page.ask("click", frame=0, id=None, x=60, y=50, positive=True)
        for window in (page, other):
            assert [window.until("loading")["now"] for _ in range(2)] == [True, False]
        page.until("drawn")
        page.ask("click", frame=0, id=1, x=62, y=50, positive=True)
        kinds: list[str] = []
        while "drawn" not in kinds:
            kinds.append(page.socket.receive_json()["type"])
        assert "loading" not in kinds, "once is enough"


def test_a_file_that_is_no_video_is_named_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    with client_of(tmp_path / "text.mp4", tmp_path / "runs") as client, page_of(client, "text.mp4") as page:
        assert "not a video that can be read" in page.until("error")["text"]
    assert not (tmp_path / "runs" / "text").exists()


def test_an_upload_is_opened_and_one_that_is_no_video_or_too_large_leaves_nothing(tmp_path: Path) -> None:
    data = toy_video(tmp_path / "square.mp4", 3).read_bytes()
    with client_of(None, tmp_path / "runs", upload_limit=len(data)) as client:

        def put(name: str, content: bytes) -> Any:
            return client.put(f"/{TOKEN}/uploads/{name}", content=content)

        assert put("a.mp4", data).json() == {"key": "a.mp4"}
        assert put("a.mp4", data).json() == {"key": "a-2.mp4"}
        assert "larger than" in put("b.mp4", data + b"x").json()["error"]
        assert "not a video" in put("c.mp4", b"no video" * 40).json()["error"]
        assert "not the name of a video" in put("d.py", data).json()["error"]
        with file_size_limit(100):
            answer = put("e.mp4", data)
        assert (answer.status_code, "cannot write" in answer.json()["error"]) == (507, True)
        assert put("..%2f..%2fout.mp4", data).status_code in (200, 404)
        with page_of(client, "a.mp4") as page:
            assert page.until("clip")["frames"] == 3
    kept = {path.name for path in (tmp_path / "runs" / "uploads").iterdir()}
    assert {"a.mp4", "a-2.mp4"} <= kept <= {"a.mp4", "a-2.mp4", "out.mp4", "_.._out.mp4"}
    assert not (tmp_path / "out.mp4").exists()


def test_a_full_disk_ends_a_run_in_words_and_keeps_what_was_made(client: TestClient, tmp_path: Path) -> None:
    with page_of(client) as page:
        page.ask("stroke", frame=0, id=None, points=[[50, 40], [70, 50]], radius=8, erase=False)
        page.until("drawn")
        journal = tmp_path / "runs" / "square" / "masks.jsonl"
        with file_size_limit(journal.stat().st_size * 6):
            page.ask("run", frame=0, direction="forward")
            ended = page.ended()
        assert ended["state"] == "failed"
        assert "cannot write" in ended["text"]
    frames = [masks.frame_index for masks in read_journal(journal)]
    assert frames == list(range(ended["done"] + 1))
    assert len(frames) > 2


def test_the_run_goes_on_when_the_browser_is_closed(video: Path, tmp_path: Path) -> None:
    app = build_app(toy_desk(video, tmp_path / "runs", seconds=0.02), TOKEN)
    with TestClient(app, base_url=BASE) as client:
        with page_of(client) as page:
            page.ask("stroke", frame=0, id=None, points=[[50, 40], [70, 50]], radius=8, erase=False)
            page.until("drawn")
            page.ask("run", frame=0, direction="forward")
            page.until("run")
        with page_of(client) as page:
            clip = page.until("clip")
            if clip["run"] is not None:
                assert page.ended()["state"] == "done"
    assert len(list(read_journal(tmp_path / "runs" / "square" / "masks.jsonl"))) == 24


def test_a_run_made_by_the_command_line_opens_with_its_masks(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "clip"
    fixture = toy_video(tmp_path / "clip.mp4", 6)
    assert main(["run", str(fixture), "--box", "40,30,80,66", "--output", str(run), "--save", "none"]) == 0
    expected = [masks.ids for masks in read_journal(run / "masks.jsonl")]
    with client_of(run, tmp_path / "elsewhere") as client, page_of(client, "clip.mp4") as page:
        clip = page.until("clip")
        assert clip["folder"] == str(run)
        assert [item["id"] for item in clip["objects"]] == [1]
        marks = page.until("marks")["marks"]
        assert [bool(marks.get(str(n))) for n in range(6)] == [bool(ids) for ids in expected]
        assert [n for n in range(6) if 255 in marks[str(n)].values()] == [0], "the prompt of the run"
    assert json.loads((run / "run.json").read_bytes())["status"] == "done"


def test_a_run_opens_from_wherever_the_page_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_video(tmp_path / "clip.mp4", 3)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["run", "clip.mp4", "--box", "40,30,80,66", "--output", "runs/clip", "--save", "none"]) == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    (clip,) = Library(tmp_path / "runs" / "clip", tmp_path / "out").clips()
    assert (clip.path, clip.run) == (tmp_path / "clip.mp4", tmp_path / "runs" / "clip")
    (tmp_path / "clip.mp4").rename(tmp_path / "moved.mp4")
    with pytest.raises(InputError, match=r"clip\.mp4, is not there; if it was moved: vidseg ui VIDEO --output"):
        Library(tmp_path / "runs" / "clip", tmp_path / "out")
    (clip,) = Library(tmp_path / "moved.mp4", tmp_path / "runs" / "clip").clips()
    assert clip.run == tmp_path / "runs" / "clip"


def test_the_static_files_are_part_of_the_package() -> None:
    assert STATIC.is_relative_to(paths.ROOT / "pipelines" / "vidseg_pipelines")
