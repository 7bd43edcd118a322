"""Identities across clips: queries are matched by the cosine of their embeddings, with birth, death and a memory.

Comparing the queries of consecutive frames is the idea of MinVIS (arXiv 2208.02245, section 3). There every query is an
object for ever; here a track begins with a confident query, keeps its last confident embeddings so that it is found
again after a gap, has a running mean of its class logits as score, and is forgotten when it stays away. What is kept
does not grow with the video.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from vidseg.types import ShapeRepr, State
from vidseg_trackers.mask2former.options import Mask2FormerOptions


@dataclass(slots=True)
class _Track:
    object_id: int
    seen: int
    count: int
    logits: Float[Tensor, " K"]
    """Sum over ``count`` clips."""
    memory: Float[Tensor, "m C"]
    """Unit embeddings, the last one is the newest."""


@dataclass(frozen=True, slots=True, repr=False)
class Match(ShapeRepr):
    """The M objects of a clip: row among the candidates, id, and the running score and class."""

    rows: Int[Tensor, " M"]
    ids: Int[Tensor, " M"]
    scores: Float[Tensor, " M"]
    labels: Int[Tensor, " M"]


class OnlineMatcher:
    """The tracks of one video."""

    def __init__(self, options: Mask2FormerOptions) -> None:
        self._options = options
        self._next_id = 1
        self._tracks: list[_Track] = []

    def step(
        self,
        first_frame: int,
        last_frame: int,
        class_logits: Float[Tensor, "N K"],
        embeddings: Float[Tensor, "N C"],
        masks: Bool[Tensor, "N P"],
    ) -> Match:
        """Match the N candidate queries of the clip of these frames, in any order.

        Args:
            first_frame: number of the clip's first frame.
            last_frame: number of its last frame.
            class_logits: the last of the K is "no object".
            embeddings: normalised or not.
            masks: pixels of all frames of the clip, at any resolution; candidates without any must be left out.
        """
        options = self._options
        class_logits, embeddings = class_logits.cpu().float(), normalize(embeddings.cpu().float(), dim=-1)
        scores = class_logits.softmax(-1)[:, :-1].amax(-1)
        sure = scores >= options.min_score
        self._tracks = [t for t in self._tracks if first_frame - t.seen <= options.max_gap + 1]
        similarity = self._similarity(embeddings)
        lost = torch.tensor([first_frame - t.seen > 1 for t in self._tracks], dtype=torch.bool)
        gain = torch.where(sure | ~lost[:, None], similarity - options.min_similarity, 0.0).clamp(min=0)
        found: dict[int, _Track] = {}
        for row, candidate in zip(*linear_sum_assignment(gain.numpy(), maximize=True), strict=True):
            if gain[row, candidate] > 0:
                found[int(candidate)] = self._tracks[row]
        best_first: list[int] = scores.argsort(descending=True, stable=True).tolist()
        for surplus in [c for c in best_first if c in found][options.max_objects :]:
            del found[surplus]
        for new in best_first:
            free = new not in found and bool(sure[new]) and len(found) < options.max_objects
            if free and not self._is_covered(masks, new, list(found)):
                found[new] = self._new_track(class_logits.shape[1], embeddings.shape[1])
        for i, track in found.items():
            self._update(track, last_frame, class_logits[i], embeddings[i], bool(sure[i]))
        self._forget_oldest()
        return self._match(found)

    def state_dict(self) -> State:
        """Everything the next step depends on."""
        tracks = self._tracks
        return {
            "next_id": self._next_id,
            "ids": torch.tensor([t.object_id for t in tracks], dtype=torch.int64),
            "seen": torch.tensor([t.seen for t in tracks], dtype=torch.int64),
            "count": torch.tensor([t.count for t in tracks], dtype=torch.int64),
            "lengths": torch.tensor([len(t.memory) for t in tracks], dtype=torch.int64),
            "logits": torch.stack([t.logits for t in tracks]) if tracks else torch.zeros(0, 0),
            "memory": torch.cat([t.memory for t in tracks]) if tracks else torch.zeros(0, 0),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore what :meth:`state_dict` gave."""
        tensors = {k: v.cpu() for k, v in state.items() if isinstance(v, Tensor)}
        self._next_id = int(state["next_id"])
        ids, seen, count = (tensors[name].tolist() for name in ("ids", "seen", "count"))
        memory = tensors["memory"].split(tensors["lengths"].tolist()) if ids else ()
        rows = zip(ids, seen, count, tensors["logits"], memory, strict=True)
        self._tracks = [_Track(i, s, c, logits.clone(), bank.clone()) for i, s, c, logits, bank in rows]

    def _similarity(self, embeddings: Float[Tensor, "N C"]) -> Float[Tensor, "tracks N"]:
        """Cosine between the mean of every memory and every candidate."""
        if not self._tracks:
            return torch.zeros(0, len(embeddings))
        return normalize(torch.stack([t.memory.mean(0) for t in self._tracks]), dim=-1) @ embeddings.T

    def _is_covered(self, masks: Bool[Tensor, "N P"], candidate: int, others: list[int]) -> bool:
        """Does the candidate draw the same as an object of this clip?"""
        own, rest = masks[candidate], masks[others]
        union = (own | rest).sum(1)
        return bool(((own & rest).sum(1) > self._options.max_overlap * union).any())

    def _new_track(self, classes: int, dim: int) -> _Track:
        track = _Track(self._next_id, 0, 0, torch.zeros(classes), torch.zeros(0, dim))
        self._next_id += 1
        self._tracks.append(track)
        return track

    def _update(self, track: _Track, frame: int, logits: Tensor, embedding: Tensor, sure: bool) -> None:
        track.seen = frame
        track.count += 1
        track.logits = track.logits + logits
        if sure:  # a half-hidden object does not look like itself
            track.memory = torch.cat([track.memory, embedding[None]])[-self._options.memory :]

    def _forget_oldest(self) -> None:
        limit = self._options.max_tracks
        if len(self._tracks) > limit:
            newest = sorted(self._tracks, key=lambda t: (-t.seen, t.object_id))[:limit]
            self._tracks = sorted(newest, key=lambda t: t.object_id)

    def _match(self, found: Mapping[int, _Track]) -> Match:
        order = sorted(found, key=lambda candidate: found[candidate].object_id)
        means = [found[c].logits / found[c].count for c in order]
        probabilities = torch.stack(means).softmax(-1)[:, :-1] if means else torch.zeros(0, 1)
        scores, labels = probabilities.max(-1)
        ids = torch.tensor([found[c].object_id for c in order], dtype=torch.int64)
        return Match(torch.tensor(order, dtype=torch.int64), ids, scores, labels)
