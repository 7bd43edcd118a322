"""The application: routes, who may ask, and what errors look like."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from prometheus_client import generate_latest

from vidseg import __version__
from vidseg.errors import VidsegError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.polygons import polygons
from vidseg.masks.rle import encode
from vidseg.masks.trust import trust
from vidseg.names import printable
from vidseg.outputs.journal import journal_line
from vidseg_pipelines.serve.bodies import (
    MaskAnswer,
    MasksAnswer,
    ObjectAnswer,
    ObjectBody,
    PreviewBody,
    PromptBody,
    PropagateBody,
    Rle,
    SessionAnswer,
    SessionBody,
)
from vidseg_pipelines.serve.frames import RAW, label_map_png
from vidseg_pipelines.serve.guard import ERRORS, Guard, explain
from vidseg_pipelines.serve.hub import Hub
from vidseg_pipelines.serve.label_studio import label_studio_routes
from vidseg_pipelines.serve.propagation import backward, forward
from vidseg_pipelines.serve.served_session import ServedSession, TooMuch
from vidseg_pipelines.serve.store import pack_state, unpack_state
from vidseg_pipelines.serve.workers import Workers
from vidseg_pipelines.web.exports import export
from vidseg_pipelines.web.uploads import receive

_MASKS: dict[int | str, dict[str, Any]] = {200: {"model": MasksAnswer, "content": {"image/png": {}}}}
"""What routes answer that give the masks of a frame."""
Form = Literal["rle", "polygons"]


def _session(session_id: str, request: Request) -> ServedSession:
    hub: Hub = request.app.state.hub
    return hub.get(session_id)


Served = Annotated[ServedSession, Depends(_session)]
"""The session of a path."""


def build_app(hub: Hub, token: str) -> FastAPI:
    """The application of a hub; whoever has the token may use it."""
    workers = Workers(hub)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        cleaning = asyncio.create_task(workers.clean())
        yield
        for task in (cleaning, *workers.preparing):
            task.cancel()
        await asyncio.to_thread(hub.rest)
        workers.threads.shutdown()

    app = FastAPI(title="vidseg", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.hub = hub
    app.add_middleware(Guard, token=token, limit=hub.limits.body, upload_limit=hub.limits.upload)
    for kind in ERRORS:
        app.add_exception_handler(kind, explain)
    _add_routes(app, hub, workers)
    label_studio_routes(app, hub, workers.compute)
    return app


def _add_routes(app: FastAPI, hub: Hub, workers: Workers) -> None:
    """All but those of Label Studio."""

    @app.get("/livez")
    async def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def ready() -> Response:
        """The networks are loaded."""
        done = hub.ready
        return JSONResponse({"status": "ok" if done else "loading"}, 200 if done else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(workers.registry), media_type="text/plain; version=0.0.4")

    @app.put("/v1/uploads/{name}")
    async def upload(name: str, request: Request) -> dict[str, str]:
        """Store a video; ``video`` is the path that opens it."""
        path = await receive(request.stream(), name, hub.uploads, hub.limits.upload)
        return {"video": path.name}

    @app.get("/v1/sessions")
    async def sessions() -> dict[str, list[str]]:
        """Ids of the open sessions."""
        return {"sessions": hub.ids}

    @app.post("/v1/sessions", status_code=201)
    async def open_session(body: SessionBody) -> SessionAnswer:
        """Open a session."""
        name = await workers.compute("open", lambda: hub.open(body.video, body.max_objects, body.detect_every))
        return SessionAnswer(**await asyncio.to_thread(hub.get(name).describe))

    @app.get("/v1/sessions/{session_id}")
    async def describe(served: Served) -> SessionAnswer:
        """Where a session stands."""
        return SessionAnswer(**await workers.compute("describe", served.describe))

    @app.delete("/v1/sessions/{session_id}")
    async def close(session_id: str) -> dict[str, str]:
        """End a session."""
        await asyncio.to_thread(hub.close, session_id)
        return {"closed": session_id}

    @app.post("/v1/sessions/{session_id}/step", responses=_MASKS)
    async def step(
        served: Served,
        request: Request,
        width: int | None = None,
        height: int | None = None,
        form: Form = "rle",
    ) -> Response:
        """The next frame: of the video, or the image in the body (JPEG, PNG, WebP, or raw RGB with its size)."""
        data = await request.body() or None
        kind = request.headers.get("content-type", RAW).partition(";")[0].strip()
        hw = None if width is None or height is None else (height, width)
        masks = await workers.compute("step", lambda: served.step(data, kind, hw))
        workers.frames.inc()
        await asyncio.to_thread(hub.make_room, request.path_params["session_id"])
        workers.prepare(served)
        return answer(masks, request, form)

    @app.post("/v1/sessions/{session_id}/propagate")
    async def propagate(served: Served, body: PropagateBody) -> Response:
        """Many frames of the video, a line of JSON for each as it comes."""
        if body.direction == "backward":
            steps = backward(served, hub.networks, body.frames)
        else:
            steps = forward(served, body.frames)

        def following() -> FrameMasks | None:
            return next(steps, None)

        first = await workers.compute("propagate", following)  # what cannot begin is an error, not half an answer

        async def lines() -> AsyncIterator[bytes]:
            masks = first
            while masks is not None:
                workers.frames.inc()
                yield json.dumps(described(masks, "rle")).encode() + b"\n"
                try:
                    masks = await workers.compute("propagate", following)
                except VidsegError as error:  # the status was sent long ago
                    yield json.dumps({"error": printable(str(error))}).encode() + b"\n"
                    break
            workers.prepare(served)

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @app.post("/v1/sessions/{session_id}/objects", status_code=201)
    async def add(served: Served, body: ObjectBody) -> ObjectAnswer:
        """A new object on the frame just seen: its id and mask."""
        object_id, mask = await workers.compute("add", lambda: served.add(**body.arguments()))
        workers.prepare(served)
        return ObjectAnswer(id=object_id, rle=Rle(**encode(mask).to_coco()))

    @app.patch("/v1/sessions/{session_id}/objects/{object_id}")
    async def correct(served: Served, object_id: int, body: PromptBody) -> ObjectAnswer:
        """Correct an object on the frame just seen: its id and mask."""
        mask = await workers.compute("correct", lambda: served.correct(object_id, **body.arguments()))
        workers.prepare(served)
        return ObjectAnswer(id=object_id, rle=Rle(**encode(mask).to_coco()))

    @app.delete("/v1/sessions/{session_id}/objects/{object_id}")
    async def remove(served: Served, object_id: int) -> dict[str, int]:
        """Forget an object from the frame just seen on."""
        await workers.compute("remove", lambda: served.remove(object_id))
        return {"id": object_id}

    @app.post("/v1/sessions/{session_id}/preview")
    async def preview(served: Served, body: PreviewBody) -> MaskAnswer:
        """The mask that a prompt would give; nothing changes."""
        mask = await workers.compute("preview", lambda: served.preview(body.id, **body.arguments()))
        return MaskAnswer(rle=Rle(**encode(mask).to_coco()))

    @app.get("/v1/sessions/{session_id}/masks", responses=_MASKS)
    async def masks(
        served: Served, request: Request, frame: Annotated[int | None, Query(ge=0)] = None, form: Form = "rle"
    ) -> Response:
        """The final masks of the frame just seen, or of an earlier one; a label map with ``Accept: image/png``."""
        return answer(await workers.compute("masks", lambda: served.masks(frame)), request, form)

    @app.post("/v1/sessions/{session_id}/reset")
    async def reset(served: Served) -> dict[str, str]:
        """Forget all objects and frames."""
        await workers.compute("reset", served.reset)
        return {"status": "ok"}

    @app.get("/v1/sessions/{session_id}/suggest")
    async def suggest(served: Served, k: Annotated[int, Query(ge=1, le=1000)] = 3) -> dict[str, Any]:
        """The frames whose correction would help most."""
        found = await workers.compute("suggest", lambda: served.suggest(k))
        return {"suggestions": [one.to_dict() for one in found]}

    @app.get("/v1/sessions/{session_id}/state")
    async def state(served: Served) -> Response:
        """All that later frames depend on, as safetensors."""
        data = await workers.compute("state", lambda: pack_state(served.state()))
        return Response(data, media_type=RAW)

    @app.put("/v1/sessions/{session_id}/state")
    async def load_state(served: Served, request: Request) -> dict[str, str]:
        """Go on from a state."""
        data = await request.body()
        await workers.compute("load_state", lambda: served.load_state(unpack_state(data)))
        return {"status": "ok"}

    @app.get("/v1/sessions/{session_id}/export")
    async def export_session(served: Served, to: str) -> Response:
        """The masks of all frames in a format of `vidseg export`; folders come as a zip."""
        folder = await workers.compute("export", served.settle)
        path = await export(folder, served.video, to)
        return FileResponse(path, filename=path.name)

    @app.websocket("/v1/sessions/{session_id}/frames")
    async def frames(socket: WebSocket, session_id: str, kind: str = "image/jpeg") -> None:
        """Frames as binary messages, answered by what ``step`` answers; errors as ``{"error": ...}``."""
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                data = await socket.receive_bytes()
                try:
                    if len(data) > hub.limits.body:
                        raise TooMuch(f"a frame of more than {hub.limits.body} bytes")
                    served = hub.get(session_id)
                    masks = await workers.compute("step", lambda s=served, d=data: s.step(d, kind))  # type: ignore[misc]
                    workers.frames.inc()
                    await socket.send_json(described(masks, "rle"))
                except VidsegError as error:
                    await socket.send_json({"error": printable(str(error))})


def answer(masks: FrameMasks, request: Request, form: Form) -> Response:
    """Masks as JSON, or as a label map where the client accepts image/png."""
    if "image/png" in request.headers.get("accept", ""):
        headers = {"x-frame": str(masks.frame_index)}
        return Response(label_map_png(masks.label_map), headers=headers, media_type="image/png")
    return JSONResponse(described(masks, form))


def described(masks: FrameMasks, form: Form) -> dict[str, Any]:
    """Masks as plain values: a line of the journal, with the size of the frame and the trust in every object."""
    record: dict[str, Any] = json.loads(journal_line(masks))
    record["height"], record["width"] = masks.hw or (None, None)
    for item, rle, signals in zip(record["objects"], masks.rles, masks.signals, strict=True):
        item["trust"] = trust(signals, item["score"])
        if form == "polygons":
            del item["rle"]
            item["polygons"] = [line.tolist() for line in polygons(rle)]
    return record
