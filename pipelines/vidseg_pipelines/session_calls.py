"""The calls of a session that take prompts: the same here (``Session``) and over a wire (``Client``)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from vidseg.names import check_label
from vidseg.types import Prompt
from vidseg_pipelines.prompt_forms import BoxLike, MaskLike, PointsLike, check_count, make_prompt


class SessionCalls(ABC):
    """What is said of the frame just seen. A context manager; the session is closed at its end."""

    def add(
        self,
        *,
        box: BoxLike | None = None,
        points: PointsLike = (),
        labels: Sequence[int] | int | None = None,
        mask: MaskLike | None = None,
        label: str | None = None,
    ) -> int:
        """A new object, from a box, clicks or both, or a mask, on the frame just seen.

        Args:
            box: x1, y1, x2, y2 in pixels, right and bottom exclusive.
            points: one click (x, y) or several.
            labels: 1 for every click on the object, 0 on background; default: all 1.
            mask: an array (H, W) of bool, or of 0 and one other value.
            label: name of the object, which the results carry.

        Returns:
            Its id, which no other object gets.

        Raises:
            UsageError: no frame yet; a tracker that takes no prompts; a prompt that is none, lies outside of the frame,
                shows nothing, or is the mask of another object.
        """
        self._check_promptable()
        if label is not None:
            check_label("label", label)
        return self._add(make_prompt(0, 1, box=box, points=points, labels=labels, mask=mask, label=label))

    def correct(
        self,
        object_id: int,
        *,
        box: BoxLike | None = None,
        points: PointsLike = (),
        labels: Sequence[int] | int | None = None,
        mask: MaskLike | None = None,
    ) -> None:
        """Correct an object on the frame just seen, and from there on. Arguments as in :meth:`add`.

        Clicks change the mask that is shown; a box, or a mask, replaces it.

        Raises:
            UsageError: as :meth:`add`; no such object.
        """
        object_id = check_count("object id", object_id, 1)
        self._check_promptable(object_id)
        self._correct(object_id, make_prompt(0, 1, box=box, points=points, labels=labels, mask=mask))

    def preview(
        self,
        object_id: int | None = None,
        *,
        box: BoxLike | None = None,
        points: PointsLike = (),
        labels: Sequence[int] | int | None = None,
        mask: MaskLike | None = None,
        quick: bool = False,
    ) -> npt.NDArray[np.bool_]:
        """The mask (H, W) that :meth:`add`, or with an id :meth:`correct`, would show. Nothing changes.

        Args:
            object_id: the object to correct; None: a new one.
            box, points, labels, mask: as in :meth:`add`.
            quick: draw it on the whole frame alone, without crops: several times as fast, for a page that shows a
                mask under the pointer. What :meth:`add` shows then may be better.

        Raises:
            UsageError: what they would refuse.
        """
        object_id = None if object_id is None else check_count("object id", object_id, 1)
        self._check_promptable(object_id)
        prompt = make_prompt(0, 1, box=box, points=points, labels=labels, mask=mask)
        return self._preview(object_id, prompt, quick=quick)

    @abstractmethod
    def close(self) -> None:
        """Let go of everything. Any further call but this one is an error."""

    def __enter__(self) -> Self:
        """The session itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _check_promptable(self, object_id: int | None = None) -> None:  # noqa: B027
        """Refuse what cannot be said now, whatever the prompt is (UsageError)."""

    @abstractmethod
    def _add(self, prompt: Prompt) -> int:
        """Add an object; frame and id of the prompt are still to be set, here and below."""

    @abstractmethod
    def _correct(self, object_id: int, prompt: Prompt) -> None: ...

    @abstractmethod
    def _preview(self, object_id: int | None, prompt: Prompt, *, quick: bool) -> npt.NDArray[np.bool_]: ...
