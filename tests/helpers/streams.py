"""Servers on 127.0.0.1 that behave as badly as a test asks."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from media import barcode_frame, write_video
from vidseg.types import Frame
from vidseg.video import live

SECRETS = ("alice", "hunter2", "s3cret")

Act = Callable[[socket.socket, "Loopback"], None]


def transport_stream(folder: Path, numbers: Sequence[int], width: int = 120, height: int = 64) -> bytes:
    """MPEG-TS of bar codes at 5 frames per second: longer than FFmpeg listens before it gives the first frame."""
    path = folder / f"{numbers[0]}-{width}.ts"
    frames = [barcode_frame(n, width, height) for n in numbers]
    options = {"tune": "zerolatency"}
    return write_video(
        path, frames, fps=5, pts=[5 * n for n in range(1, len(frames) + 1)], options=options
    ).read_bytes()


class Loopback:
    """A server whose n-th connection does the n-th act; further connections are closed at once."""

    def __init__(self, *acts: Act) -> None:
        self.acts = list(acts)
        self.connections = 0
        self.over = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        """With all the secrets a URL can have."""
        return f"http://{SECRETS[0]}:{SECRETS[1]}@127.0.0.1:{self.port}/cam/door.ts?token={SECRETS[2]}"

    def _serve(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            act = self.acts[self.connections] if self.connections < len(self.acts) else None
            self.connections += 1
            threading.Thread(target=self._play, args=(connection, act), daemon=True).start()

    def _play(self, connection: socket.socket, act: Act | None) -> None:
        with connection:
            try:
                if act is not None:
                    act(connection, self)
            except OSError:
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self._socket.close()


def arrivals(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when all frames have arrived of a live source that drops the oldest."""
    arrived, newest = threading.Event(), live.newest

    def told(frames: Iterable[Frame]) -> Iterator[Frame]:
        yield from frames
        arrived.set()

    monkeypatch.setattr(live, "newest", lambda frames, size: newest(told(frames), size))
    return arrived


def http(body: bytes, *, stall: bool = False, length: int | None = None, pace_s: float = 0.0, pieces: int = 1) -> Act:
    """Answer a request with ``body``, then close, or say nothing more until the server ends."""

    def act(connection: socket.socket, server: Loopback) -> None:
        connection.recv(4096)
        size = f"Content-Length: {length}\r\n" if length is not None else ""
        connection.sendall(f"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n{size}\r\n".encode())
        step = -(-len(body) // pieces)
        for start in range(0, len(body), step):
            connection.sendall(body[start : start + step])
            if server.over.wait(pace_s):
                return
        if stall:
            server.over.wait()

    return act


def rtsp(body: bytes) -> Act:
    """Play an MPEG-TS over RTSP, interleaved in the connection (RFC 2326, 10.12; RFC 2250), then close."""
    sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"

    def act(connection: socket.socket, server: Loopback) -> None:
        while request := connection.recv(4096).decode():
            method = request.split()[0]
            sequence = next(line for line in request.splitlines() if line.lower().startswith("cseq"))
            head, content = "Session: 1\r\n", ""
            if method == "DESCRIBE":
                head, content = f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n", sdp
            elif method == "SETUP":
                head += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            connection.sendall(f"RTSP/1.0 200 OK\r\n{sequence}\r\n{head}\r\n{content}".encode())
            if method == "PLAY":
                for number, start in enumerate(range(0, len(body), 7 * 188)):
                    payload = body[start : start + 7 * 188]
                    rtp = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, number * 90, 7) + payload
                    connection.sendall(b"$\0" + struct.pack(">H", len(rtp)) + rtp)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass  # closed before all is read, it would take back what it sent
                return

    return act
