"""The server as an ML backend of Label Studio: clicks and boxes become brush masks, boxes on a video become tracks.

The routes and fields are those that Label Studio calls: ``/health``, ``/setup``, ``/predict`` below ``/label-studio``,
the address to enter there. Its basic authentication takes any name, and the token as the password.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel, Field

from vidseg import __version__
from vidseg.errors import InputError, UsageError
from vidseg.outputs.label_studio import brush_rle
from vidseg.prompt_text import fit_prompts
from vidseg.types import Prompt
from vidseg.video.images import read_image
from vidseg.video.random_access import RandomAccess
from vidseg_pipelines.drawing import draw_prompts
from vidseg_pipelines.serve.hub import Hub

_VERSION = f"vidseg-{__version__}"
Compute = Callable[[str, Callable[[], Any]], Awaitable[Any]]
_PROMPTS = ("keypointlabels", "rectanglelabels", "keypoint", "rectangle")
_FRAMES = 500
"""Frames of a video that one prediction follows at most."""
_SECONDS = 80.0
"""Time after which a prediction ends where it is: Label Studio waits for 100 seconds."""


class Context(BaseModel):
    """What the user has just drawn."""

    result: list[dict[str, Any]] | None = None


class Params(BaseModel):
    """What Label Studio sends with the tasks."""

    context: Context | None = None


class PredictBody(BaseModel):
    """What Label Studio sends."""

    tasks: list[dict[str, Any]] = Field(max_length=1000)
    label_config: str = ""
    params: Params | None = None


def label_studio_routes(app: FastAPI, hub: Hub, compute: Compute) -> None:
    """Add the routes."""

    @app.get("/label-studio/health")
    async def health() -> dict[str, str]:
        """The backend is there."""
        return {"status": "UP", "model_class": "vidseg"}

    @app.post("/label-studio/setup")
    async def setup(body: dict[str, Any]) -> dict[str, str]:
        """A project was connected."""
        return {"model_version": _VERSION}

    @app.post("/label-studio/predict")
    async def predict(body: PredictBody) -> dict[str, Any]:
        """Predictions for tasks, from what the user has just drawn."""
        sent = body.params and body.params.context
        context = (sent and sent.result) or []
        predictor = _Predictor(hub, body.label_config)
        results = [
            await compute("predict", partial(predictor.predict, task, context or _saved(task))) for task in body.tasks
        ]
        return {"results": results}

    @app.get("/label-studio/versions")
    async def versions() -> dict[str, list[str]]:
        """The model of this server."""
        return {"versions": [_VERSION]}


class _Predictor:
    """One labelling interface and its tasks."""

    def __init__(self, hub: Hub, label_config: str) -> None:
        self.hub = hub
        try:
            root = ElementTree.fromstring(label_config or "<View/>")
        except ElementTree.ParseError as error:
            raise UsageError(f"label_config: not XML ({error})") from error
        self.tags = {tag.tag.lower(): dict(tag.attrib) for tag in root.iter()}

    def predict(self, task: dict[str, Any], context: list[dict[str, Any]]) -> dict[str, Any]:
        """The prediction for one task."""
        data = task.get("data") or {}
        try:
            if "video" in self.tags:
                result = self._track(self._path(data, "video"), context)
            else:
                result = self._brush(self._path(data, "image"), context)
        except (LookupError, TypeError, AttributeError) as error:
            raise UsageError(f"a region is not as Label Studio sends it ({type(error).__name__}: {error})") from error
        score = float(np.mean([one["score"] for one in result])) if result else 0.0
        return {"model_version": _VERSION, "score": score, "result": result}

    def _path(self, data: dict[str, Any], kind: str) -> Path:
        name = self.tags.get(kind, {}).get("value", f"${kind}").lstrip("$")
        if not isinstance(data.get(name), str):
            raise UsageError(f"the task has no {kind} under {name!r}")
        parts = urlsplit(data[name])
        local = parse_qs(parts.query).get("d", [parts.path])[0]
        return self.hub.find(unquote(local).lstrip("/").removeprefix("data/upload/"))

    def _brush(self, path: Path, context: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A mask from the clicks and boxes on an image."""
        drawn = [item for item in context if item.get("type") in _PROMPTS]
        if not drawn:
            return []
        image = read_image(path)
        height, width = image.shape[:2]
        points, marks, box = [], [], None
        for item in drawn:
            value = item["value"]
            x, y = value["x"] * width / 100, value["y"] * height / 100
            if "width" in value and "height" in value:
                box = (x, y, x + value["width"] * width / 100, y + value["height"] * height / 100)
            else:
                points.append((min(x, width - 1), min(y, height - 1)))
                marks.append(int(item.get("is_positive", value.get("is_positive", 1))))
        networks = self.hub.networks()
        prompt = Prompt(0, 1, box=box, points=tuple(points), point_labels=tuple(marks))
        prompts = fit_prompts([prompt], (height, width))
        (features,) = networks.encoder.encode([image])
        mask = draw_prompts(networks.encoder, image, features, prompts, "auto", {})[0]
        tag = self.tags.get("brushlabels", self.tags.get("brush", {}))
        value = {"format": "rle", "rle": brush_rle(mask)} | _label(drawn[-1], "brushlabels")
        return [
            {
                "id": f"vidseg-{drawn[-1].get('id', 1)}",
                "type": "brushlabels",
                "from_name": tag.get("name", "brush"),
                "to_name": tag.get("toname", tag.get("toName", drawn[-1].get("to_name", "image"))),
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "score": 1.0,
                "value": value,
            }
        ]

    def _track(self, path: Path, context: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Boxes of objects through a video, from the last box of each."""
        drawn = [item for item in context if item.get("type") == "videorectangle" and item["value"].get("sequence")]
        if not drawn:
            return []
        video = RandomAccess(path)
        session = self.hub.networks().session()
        try:
            return list(self._followed(video, session, drawn))
        finally:
            session.close()
            video.close()

    def _followed(self, video: RandomAccess, session: Any, drawn: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        width, height = video.info.width, video.info.height
        keys = [max(item["value"]["sequence"], key=lambda one: one["frame"]) for item in drawn]
        start = min(int(key["frame"]) for key in keys) - 1  # theirs begin at 1
        if not 0 <= start < video.count:
            raise InputError(f"frame {start + 1}: the video has {video.count} frames")
        objects: dict[int, int] = {}
        sequences: list[list[dict[str, Any]]] = [list(item["value"]["sequence"]) for item in drawn]
        last_keys = max(int(key["frame"]) for key in keys)
        until = time.monotonic() + _SECONDS
        for frame in range(start, min(video.count, start + _FRAMES)):
            if frame >= last_keys and time.monotonic() > until:
                break
            masks = session.step(video.read(frame).rgb)
            for n, key in enumerate(keys):
                if int(key["frame"]) - 1 == frame:
                    x, y = key["x"] * width / 100, key["y"] * height / 100
                    box = (x, y, x + key["width"] * width / 100, y + key["height"] * height / 100)
                    objects[session.add(box=box)] = n
                    masks = session.masks
            boxes = {objects[i]: box for i, box in zip(masks.ids, masks.boxes.tolist(), strict=True)}
            for n in objects.values():
                if int(keys[n]["frame"]) - 1 < frame:
                    sequences[n].append(_shown(frame, boxes.get(n), sequences[n][-1], width, height, video))
        for item, sequence in zip(drawn, sequences, strict=True):
            value = item["value"] | {"framesCount": video.count, "sequence": sequence}
            yield item | {"value": value, "score": 1.0}


def _shown(
    frame: int, box: list[float] | None, before: dict[str, Any], width: int, height: int, video: RandomAccess
) -> dict[str, Any]:
    """One entry of a sequence, in percent; an absent object ends where it was."""
    entry = {"frame": frame + 1, "time": round(frame / float(video.info.fps), 4), "rotation": 0, "enabled": True}
    if box is None:
        return entry | {name: before[name] for name in ("x", "y", "width", "height")} | {"enabled": False}
    x1, y1, x2, y2 = box
    return entry | {
        "x": 100 * x1 / width,
        "y": 100 * y1 / height,
        "width": 100 * (x2 - x1) / width,
        "height": 100 * (y2 - y1) / height,
    }


def _saved(task: dict[str, Any]) -> list[dict[str, Any]]:
    """What is drawn in a task that nobody draws in just now: in its newest draft, else its newest annotation."""
    for kind in ("drafts", "annotations"):
        rows = [row["result"] for row in task.get(kind) or () if isinstance(row, dict) and row.get("result")]
        if rows:
            return list(rows[-1])
    return []


def _label(item: dict[str, Any], name: str) -> dict[str, list[str]]:
    """What the user calls the object."""
    value = item["value"]
    labels = next((value[kind] for kind in _PROMPTS if isinstance(value.get(kind), list)), None)
    return {name: list(labels)} if labels else {}
