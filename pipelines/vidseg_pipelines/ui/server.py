"""The web application: the page, its files, frames, masks, uploads, downloads, and the socket."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Collection
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from vidseg.errors import OutputError, UsageError, VidsegError
from vidseg.names import printable
from vidseg.outputs.layout import EXPORTED
from vidseg_pipelines.ui.commands import answer
from vidseg_pipelines.ui.desk import Desk
from vidseg_pipelines.ui.guard import Guard
from vidseg_pipelines.ui.page_video import FramesRenumbered
from vidseg_pipelines.ui.windows import Window
from vidseg_pipelines.web.exports import EXPORTS, formats
from vidseg_pipelines.web.uploads import UPLOAD_LIMIT, receive

_LOG = logging.getLogger(__name__)
STATIC = Path(__file__).parent / "static"
_FOR_EVER = {"cache-control": "private, max-age=86400, immutable"}


def build_app(
    desk: Desk,
    token: str,
    hosts: Collection[str] = ("127.0.0.1", "localhost", "[::1]"),
    *,
    upload_limit: int = UPLOAD_LIMIT,
) -> Starlette:
    """The application. ``hosts`` are the names by which it may be addressed."""
    server = _Server(desk, token, upload_limit)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await desk.close()

    return Starlette(
        routes=[
            Route("/", server.page),
            Route("/clips/{key:path}/frames/{frame:int}.jpg", server.picture),
            Route("/clips/{key:path}/frames/{frame:int}.json", server.masks),
            Route("/clips/{key:path}/exports/{name}/{file}", server.download),
            Route("/uploads/{name}", server.upload, methods=["PUT"]),
            WebSocketRoute("/socket", server.socket),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Guard, token=token, hosts=hosts)],
        exception_handlers={VidsegError: _explain},
        lifespan=lifespan,
    )


async def _explain(request: Request, error: Exception) -> Response:
    """An error of vidseg as one line."""
    status = 507 if isinstance(error, OutputError) else 413 if isinstance(error, UsageError) else 422
    return JSONResponse({"error": printable(str(error))}, status_code=status)


class _Server:
    def __init__(self, desk: Desk, token: str, upload_limit: int) -> None:
        self.desk, self.token, self.upload_limit = desk, token, upload_limit

    async def page(self, request: Request) -> Response:
        """The page; all addresses in it are relative to a path that holds the token."""
        text = (STATIC / "index.html").read_text("utf-8")
        return HTMLResponse(text.replace("{{base}}", f"/{self.token}/").replace("{{formats}}", " ".join(formats())))

    async def picture(self, request: Request) -> Response:
        opened = self.desk.open.get(request.path_params["key"])
        if opened is None:
            raise HTTPException(404)
        try:
            picture = await opened.pictures.jpeg(request.path_params["frame"])
        except FramesRenumbered as error:
            await self.desk.renumber(opened, error.video)
            raise
        return Response(picture, headers=_FOR_EVER, media_type="image/jpeg")

    async def masks(self, request: Request) -> Response:
        """The line of the journal."""
        opened = self.desk.open.get(request.path_params["key"])
        if opened is None:
            raise HTTPException(404)
        line = opened.project.results.line(request.path_params["frame"])
        return Response(line or b'{"objects":[]}', media_type="application/json")

    async def download(self, request: Request) -> Response:
        opened = self.desk.open.get(request.path_params["key"])
        name, file = request.path_params["name"], request.path_params["file"]
        if opened is None or name not in EXPORTED or file not in (EXPORTED[name], f"{EXPORTED[name]}.zip"):
            raise HTTPException(404)
        path = opened.project.folder / EXPORTS / name / file
        if not path.is_file():
            raise HTTPException(404)
        stem = opened.project.folder.name
        return FileResponse(path, filename=f"{stem}-{file}")

    async def upload(self, request: Request) -> Response:
        path = await receive(
            request.stream(), request.path_params["name"], self.desk.library.uploads, self.upload_limit
        )
        return JSONResponse({"key": next(c.key for c in self.desk.library.clips() if c.path == path)})

    async def socket(self, socket: WebSocket) -> None:
        await socket.accept()
        window = Window(socket)
        self.desk.windows.append(window)
        try:
            while True:
                message = await socket.receive_json()
                try:
                    await answer(self.desk, window, message)
                except VidsegError as error:
                    await window.send({"type": "error", "text": printable(str(error))})
                    if isinstance(error, FramesRenumbered):
                        await self.desk.renumber(self.desk.of(window), error.video)
                except (ValueError, LookupError, TypeError):
                    _LOG.warning("a malformed request", exc_info=True)
                    await window.send({"type": "error", "text": "this request cannot be read"})
                except RuntimeError as error:
                    _LOG.exception("a request failed")
                    await window.send({"type": "error", "text": printable(f"internal error: {error}")})
        except (WebSocketDisconnect, ValueError, KeyError):
            pass
        finally:
            if window in self.desk.windows:
                self.desk.windows.remove(window)
            await self.desk.leave(window)
