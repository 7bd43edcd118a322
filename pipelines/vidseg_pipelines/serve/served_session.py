"""One session of the server: its calls, one after the other, and what of it is in memory and on the disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vidseg.config import RunConfig
from vidseg.errors import InputError, UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.suggestions import Suggestion, Suggestions
from vidseg.outputs.journal import journal_line, parse_line
from vidseg.types import Frame, State, VideoInfo
from vidseg.video.random_access import RandomAccess
from vidseg_pipelines.following import merged
from vidseg_pipelines.serve.calls import Call, Mask, arrays_in, drafted, prompt_of, repeat
from vidseg_pipelines.serve.drafts import DraftingSession
from vidseg_pipelines.serve.frames import decode_frame
from vidseg_pipelines.serve.models import Networks
from vidseg_pipelines.serve.store import SessionStore
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
        self.used = time.monotonic()
        self.called = 0
        """Calls so far."""
        self._lock, self._engine = threading.RLock(), threading.RLock()  # of every call; of what draws, taken second
        self._session: DraftingSession | None = None
        self._video: RandomAccess | None = None
        self._results: Results | None = None
        self._noted = 0
        self._put_last: FrameMasks | None = None

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
        with self._lock:
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
        with self._call() as session:
            number = session.next_index
            if data is not None and self.video is not None:
                raise UsageError("this session reads its frames from a video: step without a frame")
            if data is None and self.video is None:
                raise UsageError("frames are pushed into this session: send one with step")
            limit = self.store.meta.get("frames_limit")
            if limit is not None and number >= limit:
                raise TooMuch(f"this session has had its {limit} frames: open another one")
            call: Call = {"call": "step", "frame": number}
            if data is not None:
                call |= {"kind": kind, "hw": hw}
            frame = self._frame(call, data)
            before = session.state_dict() if self._noted >= KEPT_CALLS else None
            masks = session.step(frame)
            self._put(masks)
            if before is None:
                if data is not None:
                    self.store.save_frame(number, data)
                self._note(call)
            else:
                self.store.begin_generation(before, call, data)
                self._noted = 1
            return masks

    def add(self, *, quick: bool = False, **said: Any) -> tuple[int, Mask]:
        """As :meth:`vidseg.Session.add`: the id, and the mask (H, W).

        ``quick``: the mask is drawn on the whole frame alone, and in full when the next call needs it, or in
        :meth:`prepare`.
        """
        with self._lock:
            return self._prompt("add", self._loaded().next_id, said, quick)

    def correct(self, object_id: int, *, quick: bool = False, **said: Any) -> Mask:
        """As :meth:`vidseg.Session.correct`; ``quick`` as in :meth:`add`."""
        with self._lock:
            self._check(object_id)
            return self._prompt("correct", object_id, said, quick)[1]

    def remove(self, object_id: int) -> None:
        """As :meth:`vidseg.Session.remove`."""
        self._check(object_id)
        with self._call() as session:
            session.remove(object_id)
            self._put(session.masks)
            self._note({"call": "remove", "id": object_id})

    def preview(self, object_id: int | None, *, quick: bool = False, **said: Any) -> Mask:
        """As :meth:`vidseg.Session.preview`."""
        with self._lock:
            if object_id is not None:
                self._check(object_id)
            session = self._loaded()
            if quick and session.takes_drafts:
                return session.sketch(prompt_of(object_id or session.next_id, said))
            with self._call():
                return session.preview(object_id, **arrays_in(said))

    def prepare(self) -> None:
        """Draw in full what was drawn quickly, and encode the frame just seen, while nobody calls.

        Prompts that are drawn quickly need not wait for it.
        """
        with self._engine:
            if self._session is not None:
                self._session.settle()
                self._session.prepare()

    def masks(self, frame: int | None = None) -> FrameMasks:
        """The masks of the frame just seen, or of an earlier one.

        Raises:
            UsageError: no frame yet. Missing: no such frame.
        """
        with self._call() as session:
            if frame is None:
                return session.masks
            assert self._results is not None
            line = self._results.line(frame)
            if line is None:
                raise Missing(f"frame {frame} has no masks; the last one is {session.next_index - 1}")
            return parse_line(line).with_hw(session.hw)

    def reset(self) -> None:
        """As :meth:`vidseg.Session.reset`: from the first frame on."""
        with self._call() as session:
            session.reset()
            self._begin(session, None)

    def state(self) -> State:
        """As :meth:`vidseg.Session.state_dict`."""
        with self._call() as session:
            return session.state_dict()

    def load_state(self, state: State) -> None:
        """As :meth:`vidseg.Session.load_state_dict`; frames that come again have no masks until then."""
        with self._call() as session:
            session.load_state_dict(state)
            self._begin(session, state)

    def suggest(self, k: int) -> list[Suggestion]:
        """As :meth:`vidseg.Session.suggest`, of all frames so far."""
        with self._call() as session:
            results, followed = self._results, set(session.objects)
            assert results is not None

            def known() -> Iterator[FrameMasks]:
                return (parse_line(results.line(frame) or b"") for frame in results.frames)

            gone = {i: masks.frame_index + 1 for masks in known() for i in masks.ids if i not in followed}
            found = Suggestions(gone)
            for masks in known():
                found.add(masks)
        return found.best(k)

    def merge(self, found: FrameMasks, ids: Sequence[int]) -> FrameMasks:
        """Replace what the results of an earlier frame say of some objects."""
        with self._call():
            assert self._results is not None
            line = self._results.line(found.frame_index)
            masks = found if line is None else merged(parse_line(line), found, ids)
            self._put(masks)
        return masks

    def settle(self) -> Path:
        """Bring the folder into the form of a run, for exports; returns it."""
        with self._call() as session:
            assert self._results is not None
            self._results.settle()
            info = self._video.info if self._video is not None else None
            if info is None:
                height, width = session.hw
                info = VideoInfo(width, height, session.fps)
            config = RunConfig(input=str(self.video or ""), save="none")
            keep_manifest(self.store.folder, config, info, self._results, [])
            return self.store.folder

    def rest(self, wait: bool = True) -> None:
        """Let go of the memory; the next call brings it back. ``wait``: for a call that runs, else nothing happens."""
        with ExitStack() as stack:
            for lock in (self._lock, self._engine):
                if not lock.acquire(blocking=wait):
                    return
                stack.callback(lock.release)
            if self._results is not None:
                self._results.settle()
            self._let_go()

    @contextmanager
    def _call(self) -> Iterator[DraftingSession]:
        """One call, of a session that knows all that was said before.

        What fails after the session has changed is undone: the session comes back from the disk.
        """
        with self._lock, self._engine:
            try:
                session = self._loaded()
                session.settle()
                if session.shows_frame:
                    self._put(session.masks)
                yield session
            except (UsageError, InputError):
                raise  # it has changed nothing
            except BaseException:
                self._let_go()
                raise

    def _prompt(self, name: str, object_id: int, said: Call, quick: bool) -> tuple[int, Mask]:
        """A prompt that adds or corrects an object; its mask."""
        session, call = self._loaded(), {"call": name, "id": object_id, **said}
        prompt = prompt_of(object_id, said)
        if quick and prompt.mask is None and session.takes_drafts:
            mask = session.sketch(prompt)
            self._note(drafted(call, mask))
            session.keep(prompt, mask)
            return object_id, mask
        with self._call():
            session.apply(prompt)
            masks = session.masks
            self._put(masks)
            self._note(call)
            shown = dict(zip(masks.ids, masks.masks, strict=True))
            return object_id, shown.get(object_id, np.zeros(masks.hw or (0, 0), np.bool_))

    def _begin(self, session: DraftingSession, state: State | None) -> None:
        """Go on from a state; what is known of later frames is outdated."""
        assert self._results is not None
        self.store.begin_generation(state, None)
        self._noted = 0
        self._results.cut(session.next_index)

    def _let_go(self) -> None:
        """Close what is in memory; the folder has all of it."""
        for held in (self._results, self._video, self._session):
            if held is not None:
                held.close()
        self._session = self._video = self._results = self._put_last = None

    def _loaded(self) -> DraftingSession:
        """The session as its folder says."""
        self.used, self.called = time.monotonic(), self.called + 1
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
            self._noted = 0
            for call in self.store.calls():
                repeat(session, call, lambda call: self._frame(call, self._pushed(call)))
                self._noted += 1
            self._results.cut(session.next_index)  # in case of a kill after a reset
            self._session = session
        return self._session

    def _pushed(self, call: Call) -> bytes | None:
        """The data of a frame that was pushed."""
        return self.store.frame(call["frame"]) if self.video is None else None

    def _frame(self, call: Call, data: bytes | None) -> Frame | npt.NDArray[np.uint8]:
        if data is not None:
            height, width = call["hw"] or (None, None)
            return decode_frame(data, call["kind"], width, height)
        assert self._video is not None
        if call["frame"] >= self._video.count:
            raise Missing(f"the video ends with frame {self._video.count - 1}")
        return self._video.read(call["frame"])

    def _put(self, masks: FrameMasks) -> None:
        assert self._results is not None
        if masks is not self._put_last:
            line, index = journal_line(masks), masks.frame_index
            if line != self._results.line(index):
                self._results.put(index, line)
            self._put_last = masks

    def _note(self, call: Call) -> None:
        """Note a call that has succeeded, so that it can be repeated."""
        self.store.append(call)
        self._noted += 1

    def _check(self, object_id: int) -> None:
        with self._lock:
            there = self._loaded().objects
        if object_id not in there:
            listed = ", ".join(map(str, there)) or "none"
            raise Missing(f"object {object_id} is not followed; there are: {listed}")
