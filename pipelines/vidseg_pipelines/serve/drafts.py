"""Prompts that are answered at once, with a mask drawn on the whole frame alone, and drawn in full later.

A draft is such a prompt with the mask that was answered. Drafts are applied in order before anything else happens to
their session: its masks are then those of a session whose caller has waited for each.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vidseg.errors import UsageError
from vidseg.types import Prompt
from vidseg_pipelines.session import Session


@dataclass(frozen=True)
class Draft:
    """A prompt that fits its frame, and the mask (H, W) that was answered."""

    prompt: Prompt
    mask: npt.NDArray[np.bool_]

    @property
    def mask_prompt(self) -> Prompt:
        """The mask as a prompt."""
        prompt = self.prompt
        return Prompt(prompt.frame_index, prompt.object_id, mask=self.mask, label=prompt.label)


class DraftingSession(Session):
    """A session that takes drafts, also while another thread is in :meth:`settle`."""

    def reset(self) -> None:
        """As :meth:`vidseg.Session.reset`; drafts are forgotten too."""
        super().reset()
        self._drafts: tuple[Draft, ...] = ()
        self._applying = False
        self._ids: tuple[int, frozenset[int]] = 1, frozenset()
        self._lock = threading.Lock()

    @property
    def hw(self) -> tuple[int, int]:
        """(height, width) of the frames.

        Raises:
            UsageError: no frame yet.
        """
        return self._intake.size or self._seen().step.frame.hw

    @property
    def shows_frame(self) -> bool:
        """Whether there is a frame just seen; none after a state was loaded."""
        return self._engine.shown is not None

    @property
    def takes_drafts(self) -> bool:
        """Whether prompts can be drawn sooner than the tracker has them: some trackers draw them themselves."""
        return self._engine.draws_prompts

    @property
    def next_id(self) -> int:
        """Id of the next object."""
        return max([self._known()[0], *(draft.prompt.object_id + 1 for draft in self._drafts)])

    @property
    def objects(self) -> tuple[int, ...]:
        """As :attr:`vidseg.Session.objects`, with those that are drafted."""
        return tuple(sorted(self._known()[1] | {draft.prompt.object_id for draft in self._drafts}))

    def prepare(self) -> None:
        """Encode the frame just seen, where nobody has: the first prompt on it then takes less time."""
        if self.takes_drafts and self.shows_frame:
            self._engine.segmenter.features(self._seen().step)

    def apply(self, prompt: Prompt) -> None:
        """As :meth:`add` or :meth:`correct`, of the object that the prompt names.

        Raises:
            UsageError: what they refuse.
        """
        self._engine.prompt(self._seen(), self._fitted(prompt.object_id, prompt))

    def sketch(self, prompt: Prompt) -> npt.NDArray[np.bool_]:
        """The mask (H, W) of a prompt, drawn on the whole frame alone; of a new object, or one that is followed.

        Raises:
            UsageError: what :meth:`apply` refuses.
        """
        before = [draft.mask_prompt for draft in self._drafts]  # first: what is applied meanwhile is in both
        return self._engine.sketch(self._seen(), self._fitted(prompt.object_id, prompt), before)

    def keep(self, prompt: Prompt, mask: npt.NDArray[np.bool_]) -> None:
        """Apply a prompt with :meth:`settle`; ``mask`` (H, W) was answered."""
        draft = Draft(self._fitted(prompt.object_id, prompt), mask)
        with self._lock:
            self._drafts += (draft,)

    def settle(self) -> None:
        """Apply all drafts in full. Where a draft finds nothing then, the mask that was answered counts."""
        while self._drafts:
            draft = self._drafts[0]
            with self._lock:
                self._ids, self._applying = (self._engine.next_id, frozenset(self._engine.followed)), True
            try:
                self._apply(draft)
            finally:
                self._applying = False
            with self._lock:
                self._drafts = self._drafts[1:]

    def _apply(self, draft: Draft) -> None:
        try:
            self.apply(draft.prompt)
        except UsageError:
            try:
                self.apply(draft.mask_prompt)
            except UsageError:  # others have all of it by now
                self._engine.segmenter.finder.reserve(draft.prompt.object_id)

    def _known(self) -> tuple[int, frozenset[int]]:
        """The next id, and the objects that are followed; while a draft is applied, those before it."""
        with self._lock:
            if not self._applying:
                self._ids = self._engine.next_id, frozenset(self._engine.followed)
            return self._ids
