"""`vidseg serve` behind a real Label Studio (`make label-studio`, which installs it into an environment of its own).

    python tests/serve/with_label_studio.py LABEL_STUDIO [--record FILE] [--data DIR]

Label Studio runs with SQLite on a port of this machine. A project of images and one of videos get the server as their
ML backend; an interactive click gives a brush mask, also one in headless Chromium where that is installed, and a box on
a video is followed. ``--data`` keeps the database, with which it starts faster; ``--record`` keeps what it sent, which
test_label_studio.py repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import uvicorn

from browser import CHROMIUM, DRIVER, browser
from vidseg.video import VideoWriter
from vidseg_pipelines.build import ModelChoice
from vidseg_pipelines.serve.app import build_app
from vidseg_pipelines.serve.hub import Hub, Limits

IMAGES = """<View><Image name="img" value="$image"/>
<BrushLabels name="tag" toName="img" smart="false"><Label value="Ball" background="#ff0000"/></BrushLabels>
<KeyPointLabels name="kp" toName="img" smart="true" smartOnly="true">
<Label value="Ball" background="#00ff00"/></KeyPointLabels>
</View>"""
VIDEOS = """<View><Labels name="labels" toName="video"><Label value="Ball"/></Labels>
<Video name="video" value="$video" framerate="10.0"/><VideoRectangle name="box" toName="video" smart="true"/></View>"""
USER_TOKEN = "0123456789abcdef0123456789abcdef01234567"
SIZE, CENTRE, RADIUS, COUNT = (360, 480), (200, 180), 60, 6


def picture(index: int) -> np.ndarray:
    """A ball on a quiet background; it moves by 8 pixels per frame."""
    image = np.full((*SIZE, 3), (70, 90, 70), np.uint8)
    cv2.circle(image, (CENTRE[0] + 8 * index, CENTRE[1]), RADIUS, (220, 60, 40), -1, cv2.LINE_AA)
    return image


def ball(index: int) -> np.ndarray:
    """Its mask."""
    y, x = np.ogrid[: SIZE[0], : SIZE[1]]
    return np.asarray((x - CENTRE[0] - 8 * index) ** 2 + (y - CENTRE[1]) ** 2 <= RADIUS**2)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def label_studio(program: str, data: Path) -> Iterator[httpx.Client]:
    """Label Studio, and a client with the token of its user."""
    port = free_port()
    environment = os.environ | {
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(data),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "ML_BLOCK_LOCAL_IP": "false",  # else it refuses backends on this machine and on private networks,
        "SSRF_PROTECTION_ENABLED": "false",  # and the webhook that it makes for each of them
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
    }
    environment.pop("PYTHONPATH", None)
    command = [program, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    command += ["--username", "user@example.org", "--password", "password-of-the-tests", "--user-token", USER_TOKEN]
    with (data / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Token {USER_TOKEN}"}, timeout=180
            ) as client:
                for _ in range(1200):
                    if process.poll() is not None:
                        raise SystemExit(f"Label Studio ended: {(data / 'log.txt').read_text()[-2000:]}")
                    try:
                        if client.get("/health").status_code == 200:
                            break
                    except httpx.HTTPError:
                        time.sleep(1)
                yield client
        finally:
            process.terminate()
            process.wait()


@contextmanager
def backend(root: Path, state: Path, token: str, record: list[dict[str, Any]]) -> Iterator[str]:
    """The server with the embedded models, in a thread; what it is sent is added to ``record``."""
    import threading

    app, port = build_app(Hub(root, state, ModelChoice(device="cpu").load, Limits()), token), free_port()

    async def recording(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        body, status = bytearray(), []

        async def heard() -> Any:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        async def said(message: Any) -> None:
            if message["type"] == "http.response.start":
                status.append(message["status"])
            await send(message)

        await app(scope, heard, said)
        scheme = dict(scope["headers"]).get(b"authorization", b"none").split()[0].decode()
        sent = json.loads(bytes(body)) if body else None
        record.append({"method": scope["method"], "path": scope["path"], "authorization": scheme, "body": sent})
        print("   ", scope["method"], scope["path"], scheme, *status)

    server = uvicorn.Server(uvicorn.Config(recording, port=port, log_level="critical", lifespan="on", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/label-studio"
    finally:
        server.should_exit = True
        thread.join()


def checked(answer: httpx.Response) -> Any:
    """The JSON of an answer that must be one."""
    assert answer.status_code < 300, (answer.request.url, answer.status_code, answer.text[:500])
    return answer.json()


def project_of(studio: httpx.Client, title: str, config: str, file: Path, url: str, token: str) -> tuple[int, int, int]:
    """A project with one uploaded file and the backend; ids of project, task and backend."""
    project = checked(studio.post("/api/projects", json={"title": title, "label_config": config}))["id"]
    with file.open("rb") as data:
        checked(studio.post(f"/api/projects/{project}/import", files={"file": (file.name, data)}))
    (task,) = checked(studio.get("/api/tasks", params={"project": project}))["tasks"]
    body: dict[str, Any] = {"project": project, "url": url, "title": "vidseg", "is_interactive": True}
    secret = {"auth_method": "BASIC_AUTH", "basic_auth_user": "vidseg", "basic_auth_pass": token}
    connected = checked(studio.post("/api/ml", json=body | secret))
    assert connected["state"] == "CO", connected
    return project, task["id"], connected["id"]


def overlap(mask: np.ndarray, other: np.ndarray) -> float:
    """IoU."""
    return float((mask & other).sum() / (mask | other).sum())


def brush(value: dict[str, Any]) -> np.ndarray:
    """The mask of Label Studio's run-lengths, read bit by bit as its front end does."""
    bits = np.unpackbits(np.array(value["rle"], np.uint8))
    place = 0

    def number(size: int) -> int:
        nonlocal place
        place += size
        return int("".join(map(str, bits[place - size : place])), 2)

    total, width = number(32), number(5) + 1
    sizes = [number(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        same = number(1)
        length = number(sizes[number(2)]) + 1
        out += [number(width)] * length if same else [number(width) for _ in range(length)]
    return np.array(out, np.uint8).reshape(*SIZE, 4)[..., 3] > 0


def main() -> None:
    """Run it all, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("label_studio")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    record: list[dict[str, Any]] = []
    with ExitStack() as stack:
        data = options.data or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        uploads = data / "media" / "upload"
        uploads.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(data / "ball.png"), picture(0)[..., ::-1])
        writer = VideoWriter(data / "ball.mp4", SIZE[1], SIZE[0], fps=Fraction(10), time_base=Fraction(1, 10))
        for index in range(COUNT):
            writer.write(picture(index), index)
        writer.close()
        token = secrets.token_hex(16)
        url = stack.enter_context(backend(uploads, data / "state", token, record))
        studio = stack.enter_context(label_studio(options.label_studio, data))
        version = checked(studio.get("/api/version"))["release"]
        print(f"Label Studio {version} answers")
        project, task, connected = project_of(studio, "images", IMAGES, data / "ball.png", url, token)
        click = {
            **{"id": "click-1", "type": "keypointlabels", "from_name": "kp", "to_name": "img", "is_positive": True},
            **{"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0},
            "value": {
                **{"x": 100 * CENTRE[0] / SIZE[1], "y": 100 * CENTRE[1] / SIZE[0], "width": 0.5},
                "keypointlabels": ["Ball"],
            },
        }
        asked = {"task": task, "context": {"result": [click]}}
        answer = checked(studio.post(f"/api/ml/{connected}/interactive-annotating", json=asked))
        assert not answer.get("errors"), answer
        (region,) = answer["data"]["result"]
        iou = overlap(brush(region["value"]), ball(0))
        print(f"a click: a brush mask '{region['value']['brushlabels'][0]}' with an IoU of {iou:.3f}")
        assert iou > 0.9
        if CHROMIUM and DRIVER:
            shown = click_in_browser(str(studio.base_url).rstrip("/"), project, task)
            print(f"a click in the browser: {shown}")
            assert shown == "brushregion"
            assert record[-1]["path"].endswith("/predict") and record[-1]["body"]["params"]["context"]
        project, task, connected = project_of(studio, "videos", VIDEOS, data / "ball.mp4", url, token)
        left, top = CENTRE[0] - RADIUS, CENTRE[1] - RADIUS
        key = {
            **{"frame": 1, "time": 0, "enabled": True, "rotation": 0},
            **{"x": 100 * left / SIZE[1], "y": 100 * top / SIZE[0]},
            **{"width": 200 * RADIUS / SIZE[1], "height": 200 * RADIUS / SIZE[0]},
        }
        track = {
            **{"id": "track-1", "type": "videorectangle", "from_name": "box", "to_name": "video", "origin": "manual"},
            "value": {"framesCount": COUNT, "duration": COUNT / 10, "sequence": [key], "labels": ["Ball"]},
        }
        asked = {"task": task, "context": {"result": [track]}}
        answer = checked(studio.post(f"/api/ml/{connected}/interactive-annotating", json=asked))
        assert not answer.get("errors"), answer
        check_track(answer["data"]["result"])
        checked(studio.post(f"/api/tasks/{task}/annotations", json={"result": [track]}))
        actions = {"selectedItems": {"all": True, "excluded": []}}
        done = studio.post(
            "/api/dm/actions", params={"id": "retrieve_tasks_predictions", "project": project}, json=actions
        )
        print("retrieve predictions:", checked(done).get("detail"))
        (prediction,) = checked(studio.get("/api/predictions", params={"task": task}))
        assert prediction["model_version"].startswith("vidseg-")
        check_track(prediction["result"])
    if options.record is not None:
        options.record.write_text(json.dumps({"label_studio": version, "requests": record}, indent=1) + "\n")


def click_in_browser(url: str, project: int, task: int) -> str:
    """Sign in, open the task, and click on the ball with Auto-annotation on; gives the types of what comes back."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    with browser(1400, 900) as page:
        driver = page.driver
        driver.get(f"{url}/user/login/")
        driver.find_element(By.NAME, "email").send_keys("user@example.org")
        driver.find_element(By.NAME, "password").send_keys("password-of-the-tests")
        driver.execute_script("localStorage.autoAnnotation = true; document.querySelector('form').submit()")
        wait(lambda: "/user/login" not in driver.current_url)
        driver.get(f"{url}/projects/{project}/data?task={task}")
        wide = f"i.naturalWidth === {SIZE[1]} && i.clientWidth > 100"
        picture = f"[...document.querySelectorAll('img')].find(i => {wide})"
        wait(lambda: page.js(f"window.Htx && Htx.annotationStore.selected && !!({picture})"))
        time.sleep(2)  # the canvas over it
        ActionChains(driver).send_keys("2").pause(1).send_keys("m").pause(1).perform()  # label of clicks, Auto-Detect
        image = page.js(picture)
        scale = image.size["width"] / SIZE[1]
        away = [(place - size / 2) * scale for place, size in zip(CENTRE, SIZE[::-1], strict=True)]
        ActionChains(driver).move_to_element_with_offset(image, *map(round, away)).click().perform()
        wait(lambda: page.js("Htx.annotationStore.selected.suggestions.size"))
        return str(page.js("[...Htx.annotationStore.selected.suggestions.values()].map(r => r.type).join()"))


def wait(done: Callable[[], object], seconds: float = 180.0) -> None:
    """Until something is true."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "never true"
        time.sleep(0.2)


def check_track(result: list[dict[str, Any]]) -> None:
    """The box follows the ball."""
    (region,) = result
    sequence = region["value"]["sequence"]
    assert [one["frame"] for one in sequence] == list(range(1, COUNT + 1)), sequence
    moved = (sequence[-1]["x"] - sequence[0]["x"]) / 100 * SIZE[1]
    print(f"a box on a video: {len(sequence)} frames, it moved by {moved:.1f} of {8 * (COUNT - 1)} pixels")
    assert abs(moved - 8 * (COUNT - 1)) < 6


if __name__ == "__main__":
    sys.exit(main())
