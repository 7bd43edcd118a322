"""What a real Label Studio has sent (tests/serve/with_label_studio.py --record), sent again."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

import paths
from serve_toys import TOKEN, toy_hub
from toys import frames
from ui_toys import toy_video
from vidseg_pipelines.serve.app import build_app

SENT: list[dict[str, Any]] = json.loads((paths.FIXTURES / "serve" / "label_studio.json").read_text())["requests"]


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[TestClient]:
    """A server whose root is Label Studio's folder of uploads."""
    for request in SENT:
        for task in (request["body"] or {}).get("tasks", ()):
            (name,) = task["data"].values()
            path = tmp_path / "upload" / name.removeprefix("/data/upload/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".png":
                Image.fromarray(frames(1, 360, 480)[0].rgb).save(path)
            elif not path.exists():
                toy_video(path, 6)
    secret = base64.b64encode(f"vidseg:{TOKEN}".encode()).decode()
    app = build_app(toy_hub(tmp_path / "upload", tmp_path / "state"), TOKEN)
    with TestClient(app, headers={"authorization": f"Basic {secret}"}) as client:
        yield client


def test_requests_of_label_studio_are_answered_as_it_needs(studio: TestClient) -> None:
    shown: list[str] = []
    for request in SENT:
        headers = {} if request["authorization"] == "Basic" else {"authorization": ""}
        answer = studio.request(
            request["method"], f"/label-studio{request['path']}", json=request["body"], headers=headers
        )
        if request["authorization"] != "Basic":
            assert answer.status_code == 401, "its webhook comes without the password"
            continue
        assert answer.status_code == 200, answer.text
        match request["path"]:
            case "/health":
                assert answer.json()["status"] == "UP"
            case "/setup":
                assert answer.json()["model_version"].startswith("vidseg-")
            case "/predict":
                results = answer.json()["results"]
                assert len(results) == len(request["body"]["tasks"])
                for prediction in results:
                    if not prediction["result"]:
                        shown.append("nothing")
                        continue
                    (region,) = prediction["result"]
                    tags = request["body"]["label_config"]
                    assert f'name="{region["from_name"]}"' in tags and f'name="{region["to_name"]}"' in tags
                    shown.append(region["type"])
                    if region["type"] == "videorectangle":
                        assert len(region["value"]["sequence"]) == 6 and region["value"]["labels"] == ["Ball"]
                    else:
                        assert region["value"]["format"] == "rle" and region["value"]["brushlabels"] == ["Ball"]
                        assert (region["original_width"], region["original_height"]) == (480, 360)
    drawn = ["brushlabels", "nothing", "brushlabels", "videorectangle", "videorectangle"]
    assert shown == drawn, "a click, a task that is opened, a click in the browser, a box just drawn, and a saved one"
