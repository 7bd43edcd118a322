"""A session: frames come one by one, and objects are added, corrected and removed while they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, Self, Unpack

import numpy as np
import numpy.typing as npt

from vidseg.errors import UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.suggestions import Suggestion, Suggestions
from vidseg.prompt_text import fit_prompts
from vidseg.types import Prompt, State, VideoInfo
from vidseg_pipelines.build import ModelChoice, ModelSettings
from vidseg_pipelines.frame_intake import FrameIntake, FrameLike
from vidseg_pipelines.interactive import InteractiveSegmenter, Shown
from vidseg_pipelines.prompt_forms import check_count
from vidseg_pipelines.segmenter import Segmenter
from vidseg_pipelines.session_calls import SessionCalls
from vidseg_pipelines.session_state import join_state, split_state


class Session(SessionCalls):
    """Segments frames one by one, without files; objects come and go in between.

    What is added, corrected or removed acts on the frame just seen, as if it had been known when that frame came: the
    masks are those that :func:`vidseg.segment_frames` gives for the same prompts. Arguments are checked at the call,
    and after an error the session is as it was before. A session is used by one thread at a time.

    ::

        with vidseg.Session() as session:
            session.step(frame)                            # FrameMasks of this frame
            dog = session.add(box=(100, 80, 400, 360))     # an id; session.masks shows the object at once
            session.correct(dog, points=[(250, 300)], labels=[0])
            masks = session.step(next_frame)
    """

    def __init__(
        self,
        *,
        max_objects: int | None = None,
        detect_every: int = 0,
        fps: Fraction | float = 24,
        bgr: bool = False,
        **models: Unpack[ModelSettings],
    ) -> None:
        """Load the models.

        Args:
            max_objects: search for objects, and follow at most so many; None: only what is added is followed.
            detect_every: search again every so many frames; 0: only until something is found.
            fps: rate that gives arrays and images their times.
            bgr: arrays are BGR, as OpenCV's cameras give them.
            models: ``tracker``, ``model``, ``refine``, ``zoom``, ``keep_still``, ``detector``, ``device``,
                ``dtype``, ``compile``, ``tracker_options``, ``detector_options`` and ``offline``: the fields of
                :class:`vidseg_pipelines.build.ModelChoice`.

        Raises:
            UsageError: wrong values; a tracker that holds frames back. WeightsError: weights are missing or wrong.
        """
        choice = ModelChoice.of("Session", models)
        check_count("detect_every", detect_every, 0)
        if max_objects is not None:
            check_count("max_objects", max_objects, 1)
        elif choice.detector is not None or detect_every:
            what = "detector" if choice.detector is not None else "detect_every"
            raise UsageError(f"{what} is for a session that searches: give max_objects too")
        self._fps, self._bgr = fps, bgr
        self._intake = FrameIntake(fps=fps, bgr=bgr)  # refuses a wrong rate before anything is loaded
        self._models = choice.load()
        self.tracker = choice.tracker if isinstance(choice.tracker, str) else type(choice.tracker).__name__
        """Name of the tracker."""
        if self._models.tracker.lookahead:
            raise UsageError(
                f"tracker {self.tracker} holds frames back, and a session gives the masks of a frame at once: use"
                " segment_frames, or other settings of the tracker"
            )
        if max_objects is not None and self._models.tracker.finds_objects:
            raise UsageError(f"tracker {self.tracker} finds objects automatically: leave out max_objects")
        self._max_objects, self._detect_every = max_objects, detect_every
        self._closed = False
        self.reset()

    def reset(self) -> None:
        """Forget all objects and frames; the next frame may have another size. Ids begin at 1 again."""
        self._check_open()
        self._intake = FrameIntake(fps=self._fps, bgr=self._bgr)
        self._suggestions = Suggestions()
        self._engine = InteractiveSegmenter(
            Segmenter(
                self._models.tracker,
                self._models.sam,
                self._models.refiner,
                max_objects=self._max_objects or 1,
                detector=self._models.detector,
                detect_every=self._detect_every,
                search=self._max_objects is not None,
                batch=1,
            )
        )

    def step(self, frame: FrameLike) -> FrameMasks:
        """The masks of the next frame.

        Args:
            frame: a uint8 RGB array (H, W, 3) (BGR in a session that says so), a PIL image, or a
                :class:`vidseg.Frame`, whose index is greater than that of the last one.

        Raises:
            UsageError: no frame, or one of another size than the first; an index that does not grow.
        """
        self._check_open()
        checked = self._intake.check(frame)
        if self._intake.size is None:
            self._engine.segmenter.start(self._video(checked.hw))
        before = self._engine.shown
        masks = self._engine.step(checked)
        if before is not None:  # nothing more is said of it
            self._suggestions.add(before.masks)
        self._intake.accept(checked)
        return masks

    @property
    def masks(self) -> FrameMasks:
        """The masks of the frame just seen, with everything that was added, corrected and removed since.

        Raises:
            UsageError: no frame yet.
        """
        return self._seen().masks

    @property
    def next_index(self) -> int:
        """Index of the frame that the next :meth:`step` takes, unless it is a :class:`vidseg.Frame` with its own."""
        return self._intake.next_index

    @property
    def fps(self) -> Fraction:
        """Rate that gives arrays and images their times."""
        return self._intake.fps

    @property
    def objects(self) -> tuple[int, ...]:
        """Ids of the objects that are followed, visible or not."""
        self._check_open()
        if self._models.tracker.finds_objects:
            return () if self._engine.shown is None else self._engine.shown.masks.ids
        return tuple(sorted(self._engine.followed))

    def remove(self, object_id: int) -> None:
        """Forget an object, from the frame just seen on. Its id is never used again.

        Raises:
            UsageError: no frame yet; no such object; a tracker that cannot let go of objects.
        """
        object_id = check_count("object id", object_id, 1)
        self._check_promptable(object_id)
        seen = self._seen()
        self._engine.remove(seen, object_id)
        self._suggestions.forget(object_id, seen.masks.frame_index)

    def suggest(self, count: int = 5) -> list[Suggestion]:
        """The frames so far whose correction would help most, at most ``count``, the one that helps most first.

        They lie apart in time, and each names an object and the reason; of very long videos only the most doubtful
        frames are remembered. To correct an earlier frame, load a state from before it.

        Raises:
            UsageError: ``count`` below 1.
        """
        self._check_open()
        check_count("count", count, 1)
        shown = self._engine.shown
        return (self._suggestions if shown is None else self._suggestions.with_frame(shown.masks)).best(count)

    def state_dict(self) -> State:
        """All that later frames depend on: a session of the same settings that loads it goes on from here.

        Raises:
            UsageError: no frame yet.
        """
        self._check_open()
        if self._intake.size is None:
            raise UsageError("there is no frame yet: call step(frame) first")
        return join_state(self._engine.state(), self._intake, self._engine.names, self._models.tracker)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the frame at which ``state`` was taken. There is no frame to prompt on before the next step.

        Raises:
            UsageError: no state of a session, or one of another version, another tracker or other settings; the session
                then is as it was.
        """
        self._check_open()
        saved = split_state(state, self.tracker, self._models.tracker)
        engine, old = self._engine, None if self._intake.size is None else self._engine.state()
        shown, next_index, size, names = engine.shown, engine.next_index, self._intake.size, dict(engine.names)
        try:
            engine.load(saved.segmenter, self._video(saved.size), saved.next_index, saved.names)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if old is None or size is None:
                self.reset()
            else:
                engine.load(old, self._video(size), next_index, names)
                engine.shown = shown
            raise UsageError("the state is damaged, or of a session with other settings") from error
        self._intake.next_index, self._intake.size = saved.next_index, saved.size

    def close(self) -> None:
        """Let go of everything. Any further call but this one is an error."""
        if not self._closed:
            self._closed = True
            del self._engine, self._models

    def __enter__(self) -> Self:
        """The session itself."""
        self._check_open()
        return self

    def __repr__(self) -> str:
        """One line."""
        if self._closed:
            return f"Session({self.tracker}, closed)"
        return f"Session({self.tracker}, {self._intake.next_index} frames, objects {list(self.objects)})"

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the session is closed; make another one")

    def _video(self, size: tuple[int, int]) -> VideoInfo:
        return VideoInfo(size[1], size[0], self._intake.fps)

    def _seen(self) -> Shown:
        self._check_open()
        if self._engine.shown is None:
            raise UsageError("there is no frame yet: call step(frame) first")
        return self._engine.shown

    def _check_promptable(self, object_id: int | None = None) -> None:
        self._seen()
        if self._models.tracker.finds_objects:
            raise UsageError(f"tracker {self.tracker} finds objects automatically: none can be given or taken away")
        if object_id is None:
            return
        if object_id not in self.objects:
            there = ", ".join(map(str, self.objects)) or "none"
            gone = object_id < self._engine.next_id
            what = "is not followed any more" if gone else "does not exist"
            raise UsageError(f"object {object_id} {what}; there are: {there}")

    def _add(self, prompt: Prompt) -> int:
        object_id = self._engine.next_id
        self._engine.prompt(self._seen(), self._fitted(object_id, prompt))
        return object_id

    def _correct(self, object_id: int, prompt: Prompt) -> None:
        self._engine.prompt(self._seen(), self._fitted(object_id, prompt))

    def _preview(self, object_id: int | None, prompt: Prompt, *, quick: bool) -> npt.NDArray[np.bool_]:
        draw = self._engine.sketch if quick else self._engine.preview
        return draw(self._seen(), self._fitted(object_id or self._engine.next_id, prompt))

    def _fitted(self, object_id: int, prompt: Prompt) -> Prompt:
        """A prompt on the frame just seen, which it fits."""
        seen = self._seen()
        frame = seen.step.frame
        (prompt,) = fit_prompts([replace(prompt, frame_index=frame.index, object_id=object_id)], frame.hw)
        if prompt.mask is not None:
            for other, shown in seen.by_id.items():
                if other != object_id and np.array_equal(shown, prompt.mask):
                    raise UsageError(f"object {other} has this very mask already: two objects cannot share it")
        return prompt
