"""Which objects exist: their ids and class names, the search for new ones, and who makes room for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from vidseg.sam.model import FrameFeatures, SegmentAnything
from vidseg.sam.zoom import Zoom
from vidseg.types import Detector, Frame, Prompt, Proposal, State, Tracks
from vidseg_pipelines.discovery import Box, discover_objects, new_prompts
from vidseg_pipelines.drawing import draw_object

RETRY_EVERY = 10
"""Frames between attempts to find objects while none has been found."""
MAX_GAP = 30
"""Frames for which a found object must be absent before it makes room for a new one."""

Found: TypeAlias = tuple[Prompt, str | None]
"""A new object: its mask, and the name of its class if it has one."""


class ObjectFinder:
    """Knows the objects that a tracker follows: those that the user named, and those found on the way.

    At most ``max_objects`` are followed, visible or not, unless the user names more. An absent object keeps its id and
    its place until a new one needs the place: then the object that has been absent longest, for at least ``MAX_GAP``
    frames, is forgotten. Objects that the user named are never forgotten. No id is ever used twice.
    """

    def __init__(
        self,
        sam: SegmentAnything,
        *,
        detector: Detector | None = None,
        max_objects: int = 5,
        detect_every: int = 0,
        named: Iterable[int] = (),
        names: Mapping[int, str] | None = None,
        search: bool = True,
        zoom: Zoom = "auto",
        forget: Callable[[Sequence[int]], None] | None = None,
    ) -> None:
        """A finder for one video.

        Args:
            sam: finds objects where there is no ``detector``.
            detector: finds objects and their classes.
            max_objects: most objects to follow.
            detect_every: frames between two searches; 0: only until something is found.
            named: ids that the user's prompts have, now or later.
            names: what the user calls objects, by id; goes before the names of detectors and trackers.
            search: begin to search on the first frame.
            zoom: whether found objects are drawn closely, see :mod:`vidseg.sam.zoom`.
            forget: makes the tracker let go of objects; without it none is forgotten and none takes its place.
        """
        self.sam, self.detector = sam, detector
        self.max_objects, self.detect_every = max_objects, detect_every
        self.names = dict(names or {})
        """What the user calls objects, by id."""
        self.threads: int | None = None
        """Of a search; None: those of torch."""
        self._forget = forget
        self.zoom: Zoom = zoom
        self._searching = search
        self._next_search = 0
        self._highest_id = self._highest_named = max(named, default=0)
        self._named: set[int] = set()
        self._absent: dict[int, int] = {}  # of the found objects: frames since they were seen
        self._labels: dict[int, str] = {}
        self._seen: dict[int, Float[Tensor, "h w"]] = {}  # the tracker's probabilities on the last frame

    @property
    def followed(self) -> set[int]:
        """Ids of the objects that the tracker knows, visible or not."""
        return self._named | self._absent.keys()

    @property
    def searched_in_vain(self) -> bool:
        """Whether there was a search and none found an object, which gets an id above those of the user's."""
        return self._next_search > 0 and self._highest_id == self._highest_named

    def follow(self, ids: Iterable[int]) -> None:
        """The user names objects on the next frame."""
        self._named |= set(ids) - self._absent.keys()
        self._highest_id = max([self._highest_id, *self._named])

    @property
    def room(self) -> int:
        """How many new objects may be followed; below 0 where the user named more than the limit."""
        return self.max_objects - len(self.followed) + len(self._replaceable())

    @property
    def next_id(self) -> int:
        """An id that no object has had."""
        return self._highest_id + 1

    def reserve(self, object_id: int) -> None:
        """No object gets an id up to this one from now on."""
        self._highest_id = max(self._highest_id, object_id)

    def forget(self, ids: Iterable[int]) -> None:
        """The user removes objects; their ids are never used again."""
        for i in ids:
            self._named.discard(i)
            self._absent.pop(i, None)
            self._labels.pop(i, None)
            self._seen.pop(i, None)

    def is_due(self, frame_index: int) -> bool:
        """Whether to look for new objects on a frame."""
        return frame_index >= self._next_search and bool(self._searching or self.detect_every) and self.room > 0

    def find(
        self, frame: Frame, features: Callable[[], FrameFeatures], given: Mapping[int, npt.NDArray[np.bool_]]
    ) -> list[Found]:
        """The new objects on a frame: those that are neither among ``given`` masks nor the last ones.

        ``features`` encodes the frame; only where it is needed. Makes room for what is found.
        """
        if self.detector is not None:
            proposals = self.detector.detect(frame)
        else:
            masks = discover_objects(
                self.sam,
                features(),
                max_objects=self.max_objects,
                image=frame.rgb,
                zoom=self.zoom,
                tiles=self._searching,  # later searches must not hold the run up
                threads=self.threads,
            )
            proposals = [Proposal(mask, 1.0) for mask in masks]
        size = (frame.hw[1], frame.hw[0])
        unknown = [i for i in self._seen if i not in given]
        maps = torch.stack([self._seen[i] for i in unknown]).cpu().numpy() if unknown else ()
        last = {
            i: cv2.resize(m, size, interpolation=cv2.INTER_LINEAR) > 0.5 for i, m in zip(unknown, maps, strict=True)
        }

        def draw(box: Box) -> npt.NDArray[np.bool_]:
            prompt = Prompt(frame.index, 1, box=box)
            return draw_object(self.sam, frame.rgb, features(), prompt, self.zoom).mask

        found = new_prompts(
            proposals,
            frame.index,
            first_id=self._highest_id + 1,
            known=[(mask, self._label_of(i)) for i, mask in {**given, **last}.items()],
            max_objects=self.room,
            draw=draw,
        )
        self._follow_found(found, frame.index)
        return found

    def adopt(
        self, found: Sequence[Found], frame_index: int, given: Mapping[int, npt.NDArray[np.bool_]]
    ) -> list[Prompt]:
        """Prompts for what an earlier search ``found`` on a frame that comes once more, with other ``given`` masks.

        Pixels of those are theirs; a found object that they cover by half or more is none.
        """
        kept: list[Found] = []
        for prompt, label in found:
            if prompt.mask is not None:
                mask = np.logical_and.reduce([prompt.mask, *(~other for other in given.values())])
                if 2 * mask.sum() > prompt.mask.sum():
                    kept.append((replace(prompt, mask=mask), label))
        self._follow_found(kept, frame_index)
        return [prompt for prompt, _ in kept]

    def _follow_found(self, found: Sequence[Found], frame_index: int) -> None:
        self._make_room(len(found))
        for prompt, label in found:
            self._highest_id = max(self._highest_id, prompt.object_id)
            self._absent[prompt.object_id] = 0
            if label is not None:
                self._labels[prompt.object_id] = label
        self._searching = self._searching and not found
        self._next_search = frame_index + (RETRY_EVERY if self._searching else self.detect_every)

    def observe(self, tracks: Tracks) -> Tracks:
        """Take note of who is visible. Returns the tracks with the names that the user or the detector gave."""
        visible = set(tracks.ids.tolist())
        self._absent = {i: 0 if i in visible else frames + 1 for i, frames in self._absent.items()}
        if (self.detect_every or self._searching) and tracks.masks is not None:
            self._seen = dict(zip(tracks.ids.tolist(), tracks.masks, strict=True))
        ids = tracks.ids.tolist()
        if tracks.labels is None and (self._labels or self.names):
            return replace(tracks, labels=tuple(self._label_of(i) for i in ids))
        if tracks.labels is not None and not self.names.keys().isdisjoint(ids):
            labels = (self.names.get(i, label) for i, label in zip(ids, tracks.labels, strict=True))
            return replace(tracks, labels=tuple(labels))
        return tracks

    def state_dict(self) -> State:
        """Everything that later frames depend on; its size does not depend on how many objects there were."""
        state: State = {
            "searching": int(self._searching),
            "next_search": self._next_search,
            "highest_id": self._highest_id,
            "named": json.dumps(sorted(self._named)),
            "absent": json.dumps(self._absent),
            "labels": json.dumps(self._labels),
            "seen": json.dumps(list(self._seen)),
        }
        if self._seen:
            state["masks"] = torch.stack(list(self._seen.values()))
        return state

    def load_state_dict(self, state: Mapping[str, torch.Tensor | int | float | str]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._searching = bool(state["searching"])
        self._next_search, self._highest_id = int(state["next_search"]), int(state["highest_id"])
        self._named = set(json.loads(str(state["named"])))
        self._absent = {int(i): frames for i, frames in json.loads(str(state["absent"])).items()}
        self._labels = {int(i): label for i, label in json.loads(str(state["labels"])).items()}
        masks = state.get("masks")
        seen = json.loads(str(state["seen"]))
        self._seen = dict(zip(seen, masks, strict=True)) if isinstance(masks, Tensor) else {}

    def _label_of(self, object_id: int) -> str | None:
        return self.names.get(object_id) or self._labels.get(object_id)

    def _replaceable(self) -> list[int]:
        """Objects that may be forgotten, those first that have been absent longest."""
        if self._forget is None:
            return []
        return sorted(
            (i for i, frames in self._absent.items() if frames >= MAX_GAP), key=lambda i: (-self._absent[i], i)
        )

    def _make_room(self, count: int) -> None:
        surplus = len(self.followed) + count - self.max_objects
        gone = self._replaceable()[: max(0, surplus)]
        if gone and self._forget is not None:
            self._forget(gone)
        for i in gone:
            del self._absent[i]
            self._labels.pop(i, None)
