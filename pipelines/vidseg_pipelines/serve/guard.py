"""Who may ask, how much, and what errors look like."""

from __future__ import annotations

import contextlib
import hmac
from base64 import b64decode

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vidseg.errors import InputError, OutputError, UsageError, VidsegError
from vidseg.names import printable
from vidseg_pipelines.serve.hub import Outside
from vidseg_pipelines.serve.served_session import Missing, TooMuch

_OPEN = ("/livez", "/readyz")

ERRORS = (VidsegError, RequestValidationError, ClientDisconnect, StarletteHTTPException, Exception)
"""What :func:`explain` explains."""


async def explain(request: Request, error: Exception) -> Response:
    """An error as one line of JSON."""
    if isinstance(error, StarletteHTTPException):
        return JSONResponse({"error": str(error.detail)}, error.status_code)
    if isinstance(error, ClientDisconnect):
        return JSONResponse({"error": "the request was cut off"}, 400)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        if first["loc"] == ("body",) and first["type"] == "model_attributes_type":  # curl -d says that it is a form
            text = "body: an object of JSON expected, with the header content-type: application/json"
            return JSONResponse({"error": text}, 422)
        place = () if first["type"] == "json_invalid" else first["loc"]  # which is a number of letters
        where = ".".join(str(part) for part in place if part != "body")
        return JSONResponse({"error": printable(f"{where or 'body'}: {first['msg']}")}, 422)
    if not isinstance(error, VidsegError):
        return JSONResponse({"error": printable(f"internal error: {type(error).__name__}: {error}")}, 500)
    kinds = {Missing: 404, Outside: 403, TooMuch: 429, OutputError: 507, InputError: 422, UsageError: 422}
    status = next((code for kind, code in kinds.items() if isinstance(error, kind)), 503)
    return JSONResponse({"error": printable(" ".join(str(error).split()))}, status)


class Guard:
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
