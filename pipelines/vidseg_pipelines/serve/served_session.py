"""One session of the server: its calls, one after the other, and what of it is in memory and on the disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vidseg.config import RunConfig
from vidseg.errors import InputError, UsageError
from vidseg.limits import PIXEL_LIMIT
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import decode, from_coco
from vidseg.masks.suggestions import Suggestion, Suggestions
from vidseg.outputs.journal import journal_line, parse_line
from vidseg.types import Frame, Prompt, State, VideoInfo
from vidseg.video.random_access import RandomAccess
from vidseg_pipelines.following import follow, merged
from vidseg_pipelines.segmenter import FrameStep
from vidseg_pipelines.serve.frames import decode_frame
from vidseg_pipelines.serve.models import Networks
from vidseg_pipelines.serve.store import SessionStore
from vidseg_pipelines.session import Session
from vidseg_pipelines.web.manifest import keep_manifest
from vidseg_pipelines.web.results import Results

KEPT_CALLS = 24
"""Calls after which the state is saved: so many are repeated at most when a session comes back."""


class Missing(UsageError):
    """There is no such session, object or frame."""


class TooMuch(UsageError):
    """A limit of the server is reached."""


class ServedSession:
    """A session and its folder. Calls come from any thread; they wait for each other."""

    def __init__(self, store: SessionStore, networks: Callable[[], Networks]) -> None:
        """Of a folder that exists; what it holds is read at the first call."""
        self.store, self._networks = store, networks
        self.lock = threading.RLock()
        self.used = time.monotonic()
        self._session: Session | None = None
        self._video: RandomAccess | None = None
        self._results: Results | None = None
        self._calls = 0

    @property
    def in_memory(self) -> bool:
        """Whether it holds memory."""
        return self._session is not None

    @property
    def video(self) -> Path | None:
        """Its video; None: frames are pushed."""
        path = self.store.meta.get("video")
        return None if path is None else Path(path)

    def describe(self) -> dict[str, Any]:
        """What a client should know of it."""
        with self.lock:
            session = self._loaded()
            info = None if self._video is None else self._video.info
            return {
                "id": self.store.folder.name,
                "frame": session.next_index - 1,
                "objects": list(session.objects),
                "frames": None if self._video is None else self._video.count,
                "width": None if info is None else info.width,
                "height": None if info is None else info.height,
                "fps": None if info is None else float(info.fps),
            }

    def step(self, data: bytes | None = None, kind: str = "", hw: tuple[int, int] | None = None) -> FrameMasks:
        """The masks of the next frame: of the video, or of the frame that is pushed.

        Raises:
            UsageError: no more frames; a frame of another size. InputError: it cannot be read.
        """
        with self.lock:
            session = self._loaded()
            number = session.next_index
            if data is not None and self.video is not None:
                raise UsageError("this session reads its frames from a video: step without a frame")
            if data is None and self.video is None:
                raise UsageError("frames are pushed into this session: send one with step")
            limit = self.store.meta.get("frames_limit")
            if limit is not None and number >= limit:
                raise TooMuch(f"this session has had its {limit} frames: open another one")
            call: dict[str, Any] = {"call": "step", "frame": number}
            if data is not None:
                call |= {"kind": kind, "hw": hw}
            frame = self._frame(call, data)
            before = session.state_dict() if self._calls >= KEPT_CALLS else None
            with self._undone():
                masks = session.step(frame)
                self._put(masks)
                if before is None:
                    if data is not None:
                        self.store.save_frame(number, data)
                    self.store.append(call)
                    self._calls += 1
                else:
                    self.store.begin_generation(before, call, data)
                    self._calls = 1
            return masks

    def add(self, **prompt: Any) -> int:
        """As :meth:`vidseg.Session.add`."""
        with self._changing({"call": "add", **prompt}) as session:
            return session.add(**_arrays(prompt))

    def correct(self, object_id: int, **prompt: Any) -> None:
        """As :meth:`vidseg.Session.correct`."""
        self._check(object_id)
        with self._changing({"call": "correct", "id": object_id, **prompt}) as session:
            session.correct(object_id, **_arrays(prompt))

    def remove(self, object_id: int) -> None:
        """As :meth:`vidseg.Session.remove`."""
        self._check(object_id)
        with self._changing({"call": "remove", "id": object_id}) as session:
            session.remove(object_id)

    def preview(self, object_id: int | None, **prompt: Any) -> npt.NDArray[np.bool_]:
        """As :meth:`vidseg.Session.preview`."""
        with self.lock:
            if object_id is not None:
                self._check(object_id)
            return self._loaded().preview(object_id, **_arrays(prompt))

    def masks(self, frame: int | None = None) -> FrameMasks:
        """The masks of the frame just seen, or of an earlier one.

        Raises:
            UsageError: no frame yet. Missing: no such frame.
        """
        with self.lock:
            session = self._loaded()
            if frame is None or frame == session.next_index - 1:
                return session.masks
            assert self._results is not None
            line = self._results.line(frame)
            if line is None:
                raise Missing(f"frame {frame} has no masks; the last one is {session.next_index - 1}")
            return parse_line(line).with_hw(session.masks.hw or (0, 0))

    def reset(self) -> None:
        """As :meth:`vidseg.Session.reset`: from the first frame on."""
        with self.lock, self._undone():
            self._loaded().reset()
            self.store.begin_generation(None, None)
            self._calls = 0

    def state(self) -> State:
        """As :meth:`vidseg.Session.state_dict`."""
        with self.lock:
            return self._loaded().state_dict()

    def load_state(self, state: State) -> None:
        """As :meth:`vidseg.Session.load_state_dict`."""
        with self.lock, self._undone():
            self._loaded().load_state_dict(state)
            self.store.begin_generation(state, None)
            self._calls = 0

    def suggest(self, k: int) -> list[Suggestion]:
        """As :meth:`vidseg.Session.suggest`, of all frames so far."""
        found = Suggestions()
        with self.lock:
            self._loaded()
            assert self._results is not None
            for frame in self._results.frames:
                found.add(parse_line(self._results.line(frame) or b""))
        return found.best(k)

    def backward(self, frames: int | None = None) -> Iterator[FrameMasks]:
        """The objects of the frame just seen, followed towards the beginning of the video; where the session stands
        does not change. Results of other objects stay.

        Raises:
            UsageError: the frames were pushed, and are gone; nothing to follow.
        """
        with self.lock:
            shown = self._loaded().masks
        if self.video is None:
            raise UsageError("frames that were pushed are not kept: give the session a video to go back in it")
        if not shown.ids:
            raise UsageError("no object on this frame to follow")
        prompts = [
            Prompt(shown.frame_index, i, mask=mask, label=label)
            for i, mask, label in zip(shown.ids, shown.masks, shown.labels, strict=True)
        ]
        last = 0 if frames is None else max(0, shown.frame_index - frames)
        with closing(RandomAccess(self.video, cache_bytes=0)) as video:
            steps = (
                FrameStep(frame, prompts if frame.index == shown.frame_index else ())
                for frame in video.backward(shown.frame_index, last, scratch=self.store.folder)
            )
            for frame, found in follow(self._networks().models(), video.info, steps, backward=True):
                if frame.index < shown.frame_index:
                    yield self._put_back(found, shown.ids).with_hw(frame.hw)

    def _put_back(self, found: FrameMasks, ids: Sequence[int]) -> FrameMasks:
        """Replace what the results of a frame say of some objects."""
        with self.lock:
            self._loaded()
            assert self._results is not None
            line = self._results.line(found.frame_index)
            masks = found if line is None else merged(parse_line(line), found, ids)
            self._put(masks)
        return masks

    def settle(self) -> Path:
        """Bring the folder into the form of a run, for exports; returns it."""
        with self.lock:
            session = self._loaded()
            assert self._results is not None
            self._results.settle()
            info = self._video.info if self._video is not None else None
            if info is None:
                height, width = session.masks.hw or (0, 0)
                info = VideoInfo(width, height, session.fps)
            config = RunConfig(input=str(self.video or ""), save="none")
            keep_manifest(self.store.folder, config, info, self._results, [])
            return self.store.folder

    def rest(self) -> None:
        """Let go of the memory; the next call brings it back."""
        with self.lock:
            if self._results is not None:
                self._results.settle()
            self._let_go()

    @contextmanager
    def _changing(self, call: dict[str, Any]) -> Iterator[Session]:
        """One call that changes the frame just seen; it is noted when it has succeeded."""
        with self.lock, self._undone():
            session = self._loaded()
            yield session
            self._put(session.masks)
            self.store.append(call)
            self._calls += 1

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """What fails after the session has changed is undone: the session comes back from the disk."""
        try:
            yield
        except (UsageError, InputError):
            raise  # it has changed nothing
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        """Close what is in memory; the folder has all of it."""
        for held in (self._results, self._video, self._session):
            if held is not None:
                held.close()
        self._session = self._video = self._results = None

    def _loaded(self) -> Session:
        """The session as its folder says."""
        self.used = time.monotonic()
        if self._session is None:
            meta = self.store.meta
            session = self._networks().session(
                max_objects=meta.get("max_objects"), detect_every=meta.get("detect_every", 0)
            )
            self._results = Results(self.store.folder)
            self._video = None if self.video is None else RandomAccess(self.video)
            state = self.store.state()
            if state is not None:
                session.load_state_dict(state)
            self._calls = 0
            for call in self.store.calls():
                self._repeat(session, call)
                self._calls += 1
            self._session = session
        return self._session

    def _repeat(self, session: Session, call: dict[str, Any]) -> None:
        prompt = {k: v for k, v in call.items() if k not in ("call", "id", "frame", "kind", "hw")}
        match call["call"]:
            case "step":
                data = self.store.frame(call["frame"]) if self.video is None else None
                session.step(self._frame(call, data))
            case "add":
                session.add(**_arrays(prompt))
            case "correct":
                session.correct(call["id"], **_arrays(prompt))
            case "remove":
                session.remove(call["id"])
            case other:
                raise InputError(f"{self.store.folder.name}: unknown call {other!r}")

    def _frame(self, call: dict[str, Any], data: bytes | None) -> Frame | npt.NDArray[np.uint8]:
        if data is not None:
            height, width = call["hw"] or (None, None)
            return decode_frame(data, call["kind"], width, height)
        assert self._video is not None
        if call["frame"] >= self._video.count:
            raise Missing(f"the video ends with frame {self._video.count - 1}")
        return self._video.read(call["frame"])

    def _put(self, masks: FrameMasks) -> None:
        assert self._results is not None
        self._results.put(masks.frame_index, journal_line(masks))

    def _check(self, object_id: int) -> None:
        with self.lock:
            there = self._loaded().objects
        if object_id not in there:
            listed = ", ".join(map(str, there)) or "none"
            raise Missing(f"object {object_id} is not followed; there are: {listed}")


def _arrays(prompt: dict[str, Any]) -> dict[str, Any]:
    """A prompt as sessions take it: its mask is an array."""
    mask = prompt.get("mask")
    return prompt if mask is None else {**prompt, "mask": decode(from_coco(mask, PIXEL_LIMIT))}
