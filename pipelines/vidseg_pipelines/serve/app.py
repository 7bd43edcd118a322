"""The application: routes, who may ask, and what errors look like."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vidseg import __version__
from vidseg.errors import InputError, OutputError, UsageError, VidsegError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.polygons import polygons
from vidseg.masks.rle import encode
from vidseg.masks.trust import trust
from vidseg.names import printable
from vidseg.outputs.journal import journal_line
from vidseg_pipelines.serve.cores import CORES
from vidseg_pipelines.serve.frames import RAW, label_map_png
from vidseg_pipelines.serve.hub import Hub, Outside
from vidseg_pipelines.serve.label_studio import label_studio_routes
from vidseg_pipelines.serve.served_session import Missing, ServedSession, TooMuch
from vidseg_pipelines.serve.store import pack_state, unpack_state
from vidseg_pipelines.web.exports import export
from vidseg_pipelines.web.uploads import receive

T = TypeVar("T")
Form = Literal["rle", "polygons"]
_OPEN = ("/livez", "/readyz")


class Rle(BaseModel):
    """Run-lengths as COCO has them."""

    size: tuple[int, int]
    counts: str | list[int]


class PromptBody(BaseModel):
    """Where an object is on the frame just seen, in pixels: a box (right and bottom exclusive), clicks, or a mask."""

    model_config = ConfigDict(extra="forbid")
    box: tuple[float, float, float, float] | None = None
    points: list[tuple[float, float]] = Field(default_factory=list, max_length=1000)
    labels: list[int] | None = None
    mask: Rle | None = None

    def arguments(self) -> dict[str, Any]:
        """Those of :meth:`vidseg.Session.add`."""
        return {name: value for name, value in self.model_dump(exclude_none=True).items() if name != "points" or value}


class ObjectBody(PromptBody):
    """A new object."""

    label: str | None = Field(default=None, max_length=200)


class PreviewBody(PromptBody):
    """What ``add``, or with an id ``correct``, would show."""

    id: int | None = None


class SessionBody(BaseModel):
    """A new session. Without a video, frames are pushed with ``step``."""

    model_config = ConfigDict(extra="forbid")
    video: Annotated[str, Field(min_length=1)] | None = None
    max_objects: int | None = None
    detect_every: int = 0


class PropagateBody(BaseModel):
    """How far, and which way."""

    model_config = ConfigDict(extra="forbid")
    direction: Literal["forward", "backward"] = "forward"
    frames: int | None = Field(default=None, ge=1)


def _session(session_id: str, request: Request) -> ServedSession:
    hub: Hub = request.app.state.hub
    return hub.get(session_id)


Served = Annotated[ServedSession, Depends(_session)]
"""The session of a path."""


def build_app(hub: Hub, token: str) -> FastAPI:
    """The application of a hub; whoever has the token may use it."""
    server = _Server(hub)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        cleaning = asyncio.create_task(server.clean())
        yield
        cleaning.cancel()
        await asyncio.to_thread(hub.rest)
        server.workers.shutdown()

    app = FastAPI(title="vidseg", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.hub = hub
    app.add_middleware(_Guard, token=token, limit=hub.limits.body, upload_limit=hub.limits.upload)
    for kind in (VidsegError, RequestValidationError, ClientDisconnect, StarletteHTTPException, Exception):
        app.add_exception_handler(kind, _explain)
    server.add_routes(app)
    label_studio_routes(app, hub, server.compute)
    return app


async def _explain(request: Request, error: Exception) -> Response:
    """An error as one line of JSON."""
    if isinstance(error, StarletteHTTPException):
        return JSONResponse({"error": str(error.detail)}, error.status_code)
    if isinstance(error, ClientDisconnect):
        return JSONResponse({"error": "the request was cut off"}, 400)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        place = () if first["type"] == "json_invalid" else first["loc"]  # which is a number of letters
        where = ".".join(str(part) for part in place if part != "body")
        return JSONResponse({"error": printable(f"{where or 'body'}: {first['msg']}")}, 422)
    if not isinstance(error, VidsegError):
        return JSONResponse({"error": printable(f"internal error: {type(error).__name__}: {error}")}, 500)
    kinds = {Missing: 404, Outside: 403, TooMuch: 429, OutputError: 507, InputError: 422, UsageError: 422}
    status = next((code for kind, code in kinds.items() if isinstance(error, kind)), 503)
    return JSONResponse({"error": printable(" ".join(str(error).split()))}, status)


class _Guard:
    """Before everything else: the token, and the promised length of the body."""

    def __init__(self, app: ASGIApp, token: str, limit: int, upload_limit: int) -> None:
        self.app, self.token, self.limit, self.upload_limit = app, token, limit, upload_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in _OPEN:
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        limit = self.upload_limit if scope["path"].startswith("/v1/uploads/") else self.limit
        if not self._may(headers.get("authorization", "")):
            await self._refuse(401, "the header Authorization: Bearer TOKEN is missing or wrong", scope, receive, send)
            return
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > limit:
            await self._refuse(413, f"a body of {length[:20]} bytes; at most {limit} are allowed", scope, receive, send)
            return
        seen = 0

        async def bounded() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise HTTPException(413, f"a body of more than {limit} bytes")
            return message

        await self.app(scope, bounded if scope["type"] == "http" else receive, send)

    def _may(self, header: str) -> bool:
        kind, _, value = header.partition(" ")
        if kind.lower() == "basic":  # of tools that know no other: any name, and the token as the password
            with contextlib.suppress(ValueError):
                value = b64decode(value, validate=True).decode("latin-1").partition(":")[2]
        return kind.lower() in ("bearer", "basic") and hmac.compare_digest(value.encode(), self.token.encode())

    async def _refuse(self, status: int, text: str, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {"www-authenticate": "Bearer"} if status == 401 else {"connection": "close"}
        await JSONResponse({"error": text}, status, headers)(scope, receive, send)


class _Server:
    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.workers = ThreadPoolExecutor(2 * CORES, "session")  # some wait for a pass of the encoder
        self.waiting = 0
        self.registry = CollectorRegistry()
        self.frames = Counter("vidseg_frames", "Frames segmented", registry=self.registry)
        self.seconds = Histogram("vidseg_call_seconds", "Time of calls", ["call"], registry=self.registry)
        for name, text, value in (
            ("vidseg_sessions", "Open sessions", lambda: len(hub.ids)),
            ("vidseg_sessions_in_memory", "Sessions in memory", lambda: hub.in_memory),
            ("vidseg_calls_waiting", "Calls that wait or run", lambda: self.waiting),
            ("vidseg_encoder_passes", "Passes of the image encoder", lambda: self._encoder("passes")),
            ("vidseg_encoder_images", "Images in these passes", lambda: self._encoder("images")),
        ):
            Gauge(name, text, registry=self.registry).set_function(value)

    def _encoder(self, what: str) -> int:
        return int(getattr(self.hub.networks().encoder, what)) if self.hub.ready else 0

    async def compute(self, name: str, work: Callable[[], T]) -> T:
        """Work of a session in a thread.

        Raises:
            TooMuch: too many calls wait.
        """
        if self.waiting >= self.hub.limits.waiting:
            raise TooMuch(f"{self.waiting} calls wait already: try again in a moment")

        def counted() -> T:
            begun = time.perf_counter()
            with self.hub.networks().cores.working():
                result = work()
            self.seconds.labels(name).observe(time.perf_counter() - begun)
            return result

        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.workers, counted)
        finally:
            self.waiting -= 1

    async def clean(self) -> None:
        """Let sessions rest that nobody calls."""
        while True:
            await asyncio.sleep(min(10.0, max(0.2, self.hub.limits.idle_s / 4)))
            await asyncio.to_thread(self.hub.make_room)

    def add_routes(self, app: FastAPI) -> None:
        """All but those of Label Studio."""

        @app.get("/livez")
        async def live() -> dict[str, str]:
            """The process answers."""
            return {"status": "ok"}

        @app.get("/readyz")
        async def ready() -> Response:
            """The networks are loaded."""
            done = self.hub.ready
            return JSONResponse({"status": "ok" if done else "loading"}, 200 if done else 503)

        @app.get("/metrics")
        async def metrics() -> Response:
            """For Prometheus."""
            return Response(generate_latest(self.registry), media_type="text/plain; version=0.0.4")

        @app.put("/v1/uploads/{name}")
        async def upload(name: str, request: Request) -> dict[str, str]:
            """Store a video; ``video`` is the path that opens it."""
            path = await receive(request.stream(), name, self.hub.uploads, self.hub.limits.upload)
            return {"video": path.name}

        @app.get("/v1/sessions")
        async def sessions() -> dict[str, list[str]]:
            """Ids of the open sessions."""
            return {"sessions": self.hub.ids}

        @app.post("/v1/sessions", status_code=201)
        async def open_session(body: SessionBody) -> dict[str, Any]:
            """Open a session."""
            name = await self.compute("open", lambda: self.hub.open(body.video, body.max_objects, body.detect_every))
            return await asyncio.to_thread(self.hub.get(name).describe)

        @app.get("/v1/sessions/{session_id}")
        async def describe(served: Served) -> dict[str, Any]:
            """Where a session stands."""
            return await self.compute("describe", served.describe)

        @app.delete("/v1/sessions/{session_id}")
        async def close(session_id: str) -> dict[str, str]:
            """End a session."""
            await asyncio.to_thread(self.hub.close, session_id)
            return {"closed": session_id}

        @app.post("/v1/sessions/{session_id}/step")
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
            masks = await self.compute("step", lambda: served.step(data, kind, hw))
            self.frames.inc()
            await asyncio.to_thread(self.hub.make_room, request.path_params["session_id"])
            return answer(masks, request, form)

        @app.post("/v1/sessions/{session_id}/propagate")
        async def propagate(served: Served, body: PropagateBody) -> Response:
            """Many frames of the video, a line of JSON for each as it comes."""
            steps = served.backward(body.frames) if body.direction == "backward" else _forward(served, body.frames)

            def following() -> FrameMasks | None:
                return next(steps, None)

            first = await self.compute("propagate", following)  # what cannot begin is an error, not half an answer

            async def lines() -> AsyncIterator[bytes]:
                masks = first
                while masks is not None:
                    self.frames.inc()
                    yield json.dumps(described(masks, "rle")).encode() + b"\n"
                    masks = await self.compute("propagate", following)

            return StreamingResponse(lines(), media_type="application/x-ndjson")

        @app.post("/v1/sessions/{session_id}/objects", status_code=201)
        async def add(served: Served, body: ObjectBody) -> dict[str, int]:
            """A new object on the frame just seen."""
            return {"id": await self.compute("add", lambda: served.add(**body.arguments()))}

        @app.patch("/v1/sessions/{session_id}/objects/{object_id}")
        async def correct(served: Served, object_id: int, body: PromptBody) -> dict[str, int]:
            """Correct an object on the frame just seen."""
            await self.compute("correct", lambda: served.correct(object_id, **body.arguments()))
            return {"id": object_id}

        @app.delete("/v1/sessions/{session_id}/objects/{object_id}")
        async def remove(served: Served, object_id: int) -> dict[str, int]:
            """Forget an object from the frame just seen on."""
            await self.compute("remove", lambda: served.remove(object_id))
            return {"id": object_id}

        @app.post("/v1/sessions/{session_id}/preview")
        async def preview(served: Served, body: PreviewBody) -> dict[str, Any]:
            """The mask that a prompt would give; nothing changes."""
            prompt = {k: v for k, v in body.arguments().items() if k != "id"}
            mask = await self.compute("preview", lambda: served.preview(body.id, **prompt))
            return {"rle": encode(np.asarray(mask)).to_coco()}

        @app.get("/v1/sessions/{session_id}/masks")
        async def masks(
            served: Served, request: Request, frame: Annotated[int | None, Query(ge=0)] = None, form: Form = "rle"
        ) -> Response:
            """The masks of the frame just seen, or of an earlier one; a label map with ``Accept: image/png``."""
            return answer(await self.compute("masks", lambda: served.masks(frame)), request, form)

        @app.post("/v1/sessions/{session_id}/reset")
        async def reset(served: Served) -> dict[str, str]:
            """Forget all objects and frames."""
            await self.compute("reset", served.reset)
            return {"status": "ok"}

        @app.get("/v1/sessions/{session_id}/suggest")
        async def suggest(served: Served, k: Annotated[int, Query(ge=1, le=1000)] = 3) -> dict[str, Any]:
            """The frames whose correction would help most."""
            found = await self.compute("suggest", lambda: served.suggest(k))
            return {"suggestions": [one.to_dict() for one in found]}

        @app.get("/v1/sessions/{session_id}/state")
        async def state(served: Served) -> Response:
            """All that later frames depend on, as safetensors."""
            data = await self.compute("state", lambda: pack_state(served.state()))
            return Response(data, media_type=RAW)

        @app.put("/v1/sessions/{session_id}/state")
        async def load_state(served: Served, request: Request) -> dict[str, str]:
            """Go on from a state."""
            data = await request.body()
            await self.compute("load_state", lambda: served.load_state(unpack_state(data)))
            return {"status": "ok"}

        @app.get("/v1/sessions/{session_id}/export")
        async def export_session(served: Served, to: str) -> Response:
            """The masks of all frames in a format of `vidseg export`; folders come as a zip."""
            folder = await self.compute("export", served.settle)
            path = await export(folder, served.video or folder, to)
            return FileResponse(path, filename=path.name)

        @app.websocket("/v1/sessions/{session_id}/frames")
        async def frames(socket: WebSocket, session_id: str, kind: str = "image/jpeg") -> None:
            """Frames as binary messages, answered by what ``step`` answers; errors as ``{"error": ...}``."""
            await socket.accept()
            with contextlib.suppress(WebSocketDisconnect):
                while True:
                    data = await socket.receive_bytes()
                    try:
                        if len(data) > self.hub.limits.body:
                            raise TooMuch(f"a frame of more than {self.hub.limits.body} bytes")
                        served = self.hub.get(session_id)
                        masks = await self.compute("step", lambda s=served, d=data: s.step(d, kind))  # type: ignore[misc]
                        self.frames.inc()
                        await socket.send_json(described(masks, "rle"))
                    except VidsegError as error:
                        await socket.send_json({"error": printable(str(error))})


def _forward(served: ServedSession, frames: int | None) -> Any:
    count = served.describe()["frames"]
    if count is None:
        raise UsageError("frames are pushed into this session: send them with step")
    left = count - 1 - served.describe()["frame"]
    for _ in range(left if frames is None else min(frames, left)):
        yield served.step()


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
