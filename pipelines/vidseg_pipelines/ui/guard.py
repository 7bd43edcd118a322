"""Who may ask: only requests with the token, addressed to this machine, are answered."""

from __future__ import annotations

import hmac
from collections.abc import Collection
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob:; style-src 'self' 'unsafe-inline';"
    " frame-ancestors 'none'; base-uri 'self'; form-action 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """Stands before the application. The token is in the query (``?token=``) or first in the path (``/TOKEN/...``).

    A path keeps it where the page's own files, pictures and socket have addresses relative to the page: no cookie,
    which browsers would send to every port of this machine.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Collection[str]) -> None:
        """``hosts``: names by which this server may be addressed; others are those of a rebound domain."""
        self.app, self.token, self.hosts = app, token, {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if (reason := self._refusal(scope, headers)) is not None:
            await self._refuse(reason, scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    answer.setdefault(name, value)
                answer.setdefault("cache-control", "no-store")
            await send(message)

        await self.app(self._without_token(scope), receive, send_safely)

    def _refusal(self, scope: Scope, headers: Headers) -> str | None:
        if _host(headers.get("host", "")) not in self.hosts:
            return "this address is not one of vidseg ui"
        if not self._has_token(scope):
            return "open the address that vidseg ui printed: it has a token"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return "requests from other pages are refused"
        return None

    def _has_token(self, scope: Scope) -> bool:
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
        given.append(scope["path"].split("/")[1] if "/" in scope["path"] else "")
        return any(hmac.compare_digest(text.encode(), self.token.encode()) for text in given)

    def _without_token(self, scope: Scope) -> Scope:
        prefix = f"/{self.token}"
        if not scope["path"].startswith(f"{prefix}/"):
            return scope
        return {**scope, "path": scope["path"][len(prefix) :], "raw_path": scope.get("raw_path")}

    async def _refuse(self, reason: str, scope: Scope, receive: Receive, send: Send) -> None:
        answer = PlainTextResponse(f"403: {reason}\n", status_code=403)
        if scope["type"] == "http":
            await answer(scope, receive, send)
        elif "websocket.http.response" in scope.get("extensions", {}):
            await receive()
            await send({"type": "websocket.http.response.start", "status": 403, "headers": answer.raw_headers})
            await send({"type": "websocket.http.response.body", "body": answer.body})
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # before it was accepted: 403


def _host(text: str) -> str:
    """The name in a Host header, without its port."""
    if text.startswith("["):
        return text.partition("]")[0].lower() + "]"
    return text.rpartition(":")[0].lower() if ":" in text else text.lower()
