"""A session on a server, with the methods of :class:`vidseg.Session`."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from types import TracebackType
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from vidseg.errors import InputError, OutputError, UsageError, VidsegError
from vidseg.limits import PIXEL_LIMIT
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import decode, encode, from_coco
from vidseg.outputs.journal import parse_line
from vidseg.types import Prompt, State
from vidseg_pipelines.frame_intake import FrameLike, as_frame, exact_rate
from vidseg_pipelines.prompt_forms import check_count
from vidseg_pipelines.serve.frames import encode_frame
from vidseg_pipelines.serve.store import pack_state, unpack_state
from vidseg_pipelines.session_calls import SessionCalls

Form: TypeAlias = Literal["raw", "png", "jpeg"]


class Client(SessionCalls):
    """A session of `vidseg serve`. A context manager; the session ends with it.

    ::

        with vidseg.Client("http://127.0.0.1:8000", token=token) as session:
            session.step(frame)
            dog = session.add(box=(100, 80, 400, 360))
            masks = session.step(next_frame)
    """

    def __init__(
        self,
        url: str,
        *,
        token: str,
        video: str | None = None,
        max_objects: int | None = None,
        detect_every: int = 0,
        bgr: bool = False,
        form: Form = "raw",
        timeout: float = 120.0,
    ) -> None:
        """Open a session.

        Args:
            url: address of the server.
            token: its secret; spaces and line ends around it are dropped.
            video: path below the root of the server; None: frames are pushed with :meth:`step`.
            max_objects, detect_every, bgr: as for :class:`vidseg.Session`.
            form: how frames are sent; raw pixels and PNG are without loss.
            timeout: seconds that an answer may take.

        Raises:
            UsageError: wrong values; what the server refuses; the package httpx is missing. InputError: it cannot be
                reached.
        """
        try:
            httpx = importlib.import_module("httpx")
        except ImportError as error:
            raise UsageError("vidseg.Client needs another package: pip install 'vidseg[serve]'") from error
        if form not in get_args(Form):
            raise UsageError(f"form {form!r}: allowed are {', '.join(get_args(Form))}")
        if not (isinstance(token, str) and token.isascii() and token.strip().isprintable()):
            raise UsageError("token: one line of printable ASCII expected, as `vidseg serve` prints it")
        if not (isinstance(timeout, (int, float)) and timeout > 0):
            raise UsageError(f"timeout {timeout!r}: seconds, a number over 0, expected")
        self._httpx, self._form, self._bgr = httpx, form, bgr
        secure = not url.lower().startswith("http://")  # reading certificates takes longer than a session on the server
        headers = {"authorization": f"Bearer {token.strip()}"}
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, verify=secure)
        except (httpx.InvalidURL, TypeError, ValueError) as error:
            raise UsageError(f"url {url!r}: an address such as http://127.0.0.1:8000 expected ({error})") from error
        self._path = "/v1/sessions"
        try:
            opened = self._call(
                "POST", "", json={"video": video, "max_objects": max_objects, "detect_every": detect_every}
            ).json()
        except BaseException:
            self._http.close()
            raise
        self.id: str = opened["id"]
        """Of the session on the server."""
        self.frames: int | None = opened["frames"]
        """Frames of its video."""
        self._path += f"/{self.id}"

    def step(self, frame: FrameLike | None = None) -> FrameMasks:
        """The masks of the next frame: of ``frame``, or of the server's video. As :meth:`vidseg.Session.step`.

        Only the pixels of a frame are sent: the server counts frames, also where a :class:`vidseg.Frame` has a number.
        """
        if frame is None:
            return _masks(self._call("POST", "/step").content)
        rgb = as_frame(frame, 0, exact_rate(24), bgr=self._bgr).rgb
        data, kind, query = encode_frame(rgb, self._form)
        return _masks(self._call("POST", "/step", params=query, content=data, headers={"content-type": kind}).content)

    def propagate(
        self, frames: int | None = None, *, direction: Literal["forward", "backward"] = "forward"
    ) -> Iterator[FrameMasks]:
        """The masks of many frames of the server's video, as they come.

        The server goes on while you look at them: what is said before the end acts on the frame that it has come to.

        Raises:
            UsageError: what the server refuses. InputError: a frame cannot be read; the server is gone. What came
                before stays.
        """
        body = {"direction": direction, "frames": frames}
        with self._reaching(), self._http.stream("POST", f"{self._path}/propagate", json=body) as answer:
            if answer.status_code >= 400:
                answer.read()
            _check(answer)
            for line in answer.iter_lines():
                yield _masks(line.encode())

    @property
    def masks(self) -> FrameMasks:
        """As :attr:`vidseg.Session.masks`."""
        return _masks(self._call("GET", "/masks").content)

    @property
    def objects(self) -> tuple[int, ...]:
        """As :attr:`vidseg.Session.objects`."""
        return tuple(self._call("GET", "").json()["objects"])

    @property
    def next_index(self) -> int:
        """As :attr:`vidseg.Session.next_index`."""
        return int(self._call("GET", "").json()["frame"]) + 1

    def remove(self, object_id: int) -> None:
        """As :meth:`vidseg.Session.remove`."""
        self._call("DELETE", f"/objects/{check_count('object id', object_id, 1)}")

    def suggest(self, count: int = 5) -> list[dict[str, Any]]:
        """As :meth:`vidseg.Session.suggest`, as plain values."""
        found: list[dict[str, Any]] = self._call("GET", "/suggest", params={"k": count}).json()["suggestions"]
        return found

    def export(self, to: str) -> bytes:
        """All masks so far in a format of `vidseg export`; a zip where that is a folder."""
        return bytes(self._call("GET", "/export", params={"to": to}).content)

    def reset(self) -> None:
        """As :meth:`vidseg.Session.reset`."""
        self._call("POST", "/reset")

    def state_dict(self) -> State:
        """As :meth:`vidseg.Session.state_dict`."""
        return unpack_state(self._call("GET", "/state").content)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As :meth:`vidseg.Session.load_state_dict`."""
        self._call("PUT", "/state", content=pack_state(dict(state)))

    def close(self) -> None:
        """End the session on the server. Any further call but this one is an error."""
        if not self._http.is_closed:
            try:
                self._call("DELETE", "")
            finally:
                self._http.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; an error of the block is not hidden by one of closing."""
        with nullcontext() if error is None else suppress(VidsegError):
            self.close()

    def __repr__(self) -> str:
        """One line."""
        return f"Client({self._http.base_url}, session {self.id}{', closed' if self._http.is_closed else ''})"

    def _add(self, prompt: Prompt) -> int:
        body = _body(prompt) | {"quick": False} | ({} if prompt.label is None else {"label": prompt.label})
        return int(self._call("POST", "/objects", json=body).json()["id"])

    def _correct(self, object_id: int, prompt: Prompt) -> None:
        self._call("PATCH", f"/objects/{object_id}", json=_body(prompt) | {"quick": False})

    def _preview(self, object_id: int | None, prompt: Prompt, *, quick: bool) -> npt.NDArray[np.bool_]:
        body = _body(prompt) | {"quick": quick} | ({} if object_id is None else {"id": object_id})
        return decode(from_coco(self._call("POST", "/preview", json=body).json()["rle"], PIXEL_LIMIT))

    def _call(self, method: str, path: str, **how: Any) -> Any:
        with self._reaching():
            answer = self._http.request(method, self._path + path, **how)
        _check(answer)
        return answer

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Errors of the connection as one line."""
        if self._http.is_closed:
            raise UsageError("the session is closed; make another one")
        try:
            yield
        except self._httpx.HTTPError as error:
            raise InputError(f"{self._http.base_url}: {str(error) or type(error).__name__}") from error


def _check(answer: Any) -> None:
    """Errors of the server as the session would raise them."""
    if answer.status_code < 400:
        return
    try:
        text = str(answer.json()["error"])
    except (ValueError, LookupError, TypeError):
        text = f"status {answer.status_code}"
    kinds: dict[int, type[VidsegError]] = {507: OutputError, 500: VidsegError}
    raise kinds.get(answer.status_code, UsageError)(text)


def _masks(line: bytes) -> FrameMasks:
    """The result of a frame, or, among those of :meth:`Client.propagate`, the error that ended them (InputError)."""
    record = json.loads(line)
    if "error" in record:
        raise InputError(record["error"])
    return parse_line(line).with_hw((record["height"], record["width"]))


def _body(prompt: Prompt) -> dict[str, Any]:
    """A prompt as the server takes it."""
    body: dict[str, Any] = {}
    if prompt.box is not None:
        body["box"] = prompt.box
    if prompt.points:
        body |= {"points": prompt.points, "labels": prompt.point_labels}
    if prompt.mask is not None:
        body["mask"] = encode(prompt.mask).to_coco()
    return body
