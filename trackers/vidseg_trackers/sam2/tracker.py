"""The ``sam2`` tracker: SAM 2's memory, causal and bounded, for streams without end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg.errors import InputError, UsageError
from vidseg.sam.model import FrameFeatures, SegmentAnything
from vidseg.sam2 import preprocess
from vidseg.sam2.adapter import Sam2AsSam
from vidseg.sam2.decoder import as_points
from vidseg.sam2.loading import load_sam2, names_a_sam2
from vidseg.sam2.model import Sam2, Sam2Features
from vidseg.types import Frame, Prompt, State, Tracks, VideoInfo
from vidseg_trackers.sam2.options import AUTO, DEFAULT, Sam2Options
from vidseg_trackers.sam2.records import POINTER_FRAMES, Record, Stores, keep_recent, reading
from vidseg_trackers.sam2.rules import VideoRules

_PARTS = ("low", "score", "ptr", "mem")


def build(options: Mapping[str, object], *, device: torch.device, dtype: torch.dtype, offline: bool) -> Sam2Tracker:
    """Entry point ``sam2``.

    Raises:
        UsageError: unknown or wrong options.
        WeightsError: the weights are missing, damaged or no SAM 2.
    """
    chosen = Sam2Options.from_mapping(options)
    load = partial(load_sam2, device=device, dtype=dtype, offline=offline)
    if chosen.weights == AUTO:  # loaded only if there is no SAM 2 to share
        return Sam2Tracker(partial(load, DEFAULT), chosen)
    return Sam2Tracker(load(chosen.weights), chosen)


def default_weights(model: str) -> str:
    """The weights that are used by default where ``model`` draws the masks."""
    return model if names_a_sam2(model) else DEFAULT


class Sam2Tracker:
    """One video at a time, one step per frame, strictly causal; all objects of a frame in one batch.

    Prompts are boxes and clicks, or masks. A prompt of a known object corrects what is tracked on that frame, and the
    corrected frame is remembered as a prompted one. Objects never see each other: their masks may overlap.
    """

    lookahead = 0
    wants_masks = False
    finds_objects = False
    can_remove = True

    def __init__(self, net: Sam2 | Callable[[], Sam2], options: Sam2Options | None = None) -> None:
        """A tracker around a network in evaluation mode, on its device and in its dtype.

        ``net`` may be a function that loads it: it is called when the first video starts, unless the network of
        :meth:`share` is used.
        """
        self.options = options or Sam2Options()
        self._net = self._own = net
        self._encoded: tuple[Frame, Sam2Features] | None = None
        self._rules: VideoRules | None = None
        self._shared: Sam2AsSam | None = None
        self._official = self.options.memory == "official"
        self._size: tuple[int, int] | None = None
        self.reset()

    @property
    def net(self) -> Sam2:
        """The network."""
        if not isinstance(self._net, Sam2):
            self._net = self._own = self._net()
        return self._net

    @property
    def rules(self) -> VideoRules:
        """The video rules around the network."""
        if self._rules is None:
            self._rules = VideoRules(self.net, getattr(torch, self.options.memory_dtype))
        return self._rules

    def share(self, sam: SegmentAnything) -> bool:
        """Work with the network that draws the masks, if it has these weights; then a frame is encoded once for both.

        The masks are then drawn on the tracker's features, which see the frame as the published video predictor does.
        """
        self._shared, self._net, self._rules = None, self._own, None
        if not isinstance(sam, Sam2AsSam):
            return False
        if not isinstance(self._own, Sam2) or self._own is sam.net or _equal(self._own, sam.net):
            self._shared, self._net = sam, sam.net
        return self._shared is not None

    def features(self, frame: Frame) -> FrameFeatures:
        """The features of a frame for the network of :meth:`share`: it is encoded now, or was just now.

        Raises:
            UsageError: no network is shared.
        """
        if self._shared is None:
            raise UsageError("sam2: features are available only with a shared network")
        return self._shared.wrap(self._encode(frame))

    def _encode(self, frame: Frame) -> Sam2Features:
        if self._encoded is None or self._encoded[0] is not frame:
            self._encoded = (frame, self.net.encode_frame(frame.rgb))
        return self._encoded[1]

    def reset(self) -> None:
        """Forget all objects."""
        self._encoded = None
        self._stores: dict[int, Stores] = {}
        self._absent: dict[int, int] = {}
        self._time = -1
        self._frames: int | None = None

    def start(self, video: VideoInfo) -> None:
        """Forget everything and prepare for a video."""
        self.reset()
        self._net = self.net
        self._size = (video.height, video.width)
        self._frames = video.frame_count if self._official else None

    @torch.inference_mode()
    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        """The objects on the next frame; those that are not there are left out.

        Raises:
            InputError: the frame's size is not the video's.
            UsageError: a mask of another size, or two prompts for one object.
        """
        self._check(frame, prompts)
        self._time += 1
        if not self._stores and not prompts:
            return [self._tracks(frame, {})]
        features = self._encode(frame)
        records = self._track(features)
        for prompt in prompts:
            records[prompt.object_id] = self._prompted(features, frame, prompt, records.get(prompt.object_id))
        for stores in self._stores.values():
            keep_recent(stores, self._time, self.net.config, self.options.max_cond_frames)
        tracks = self._tracks(frame, records)
        self._forget_absent(set(tracks.ids.tolist()))
        return [tracks]

    def finish(self) -> list[Tracks]:
        """Nothing is held back."""
        return []

    def remove(self, ids: Sequence[int]) -> None:
        """Forget objects; unknown ids are ignored."""
        for i in ids:
            self._stores.pop(i, None)
            self._absent.pop(i, None)

    def _track(self, features: Sam2Features) -> dict[int, Record]:
        """Records, with memory, of all known objects on this frame."""
        if not self._stores:
            return {}
        embedding = self._conditioned(features, list(self._stores.values()))
        records = self.rules.prompted(features, embedding)
        self.rules.remember(features, records, prompted=False)
        for stores, record in zip(self._stores.values(), records, strict=True):
            stores.other[self._time] = record
        return dict(zip(self._stores, records, strict=True))

    def _conditioned(self, features: Sam2Features, stores: Sequence[Stores]) -> Tensor:
        config = self.net.config
        readings = [reading(one, self._time, config, frames=self._frames) for one in stores]
        frames = POINTER_FRAMES if self._frames is None else min(self._frames, POINTER_FRAMES)
        return self.rules.condition(features, readings, frames)

    def _prompted(self, features: Sam2Features, frame: Frame, prompt: Prompt, tracked: Record | None) -> Record:
        """The record of an object that was prompted on this frame."""
        stores = self._stores.setdefault(prompt.object_id, Stores())
        self._absent[prompt.object_id] = 0
        exact: Tensor | None = None
        if prompt.mask is not None:
            given = preprocess.mask_prompt(prompt.mask, self.net.config.image_size, self.net.device)
            record = self.rules.given(features, given)
            exact = None if self._official else (given.mask * 2 - 1) * preprocess.MASK_LOGIT
        else:
            embedding = features.embedding if tracked is None else self._conditioned(features, [stores])
            previous = None if tracked is None else tracked.low
            (record,) = self.rules.prompted(features, embedding, self._clicks(frame, prompt), previous)
        self.rules.remember(features, [record], prompted=True, exact=exact)
        if tracked is None or not self._official:
            stores.other.pop(self._time, None)
            stores.cond[self._time] = record
        return record

    def _clicks(self, frame: Frame, prompt: Prompt) -> tuple[Tensor, Tensor]:
        (height, width), size, device = frame.hw, self.net.config.image_size, self.net.device
        points = labels = box = None
        if prompt.points:
            points = preprocess.scaled([prompt.points], width, height, size).to(device)
            labels = torch.tensor([prompt.point_labels], device=device)
        if prompt.box is not None:
            corners = np.array(prompt.box, np.float32).reshape(1, 2, 2)
            box = preprocess.scaled(corners, width, height, size).reshape(1, 4).to(device)
        result = as_points(points, labels, box)
        assert result is not None  # a prompt is never empty
        return result

    def _tracks(self, frame: Frame, records: Mapping[int, Record]) -> Tracks:
        """Objects that own a pixel at the size of the frame; masks at the network's low resolution.

        What the host needs of all objects comes in one transfer.
        """
        (height, width), side = frame.hw, self.net.config.image_size // 4
        lows, told = [], [torch.zeros(0, width + height + 1, device=self.net.device)]
        for record in records.values():
            assert record.low is not None  # of this frame
            low = record.low.float()  # without a positive pixel where the object is not there
            mask = F.interpolate(low, frame.hw, mode="bilinear", align_corners=False)[0, 0] > 0
            told.append(torch.cat([mask.any(0), mask.any(1), torch.sigmoid(record.score.float())[0]])[None])
            lows.append(low[0])
        answers = torch.cat(told).cpu().numpy()
        present = np.asarray(answers[:, :width].any(1))
        columns, rows = answers[present, :width] > 0, answers[present, width : width + height] > 0
        masks = [torch.sigmoid(low) for low, there in zip(lows, present.tolist(), strict=True) if there]
        return Tracks(
            frame.index,
            np.array(list(records), np.int64)[present],
            np.stack([*_span(columns), *_span(rows)], 1)[:, [0, 2, 1, 3]].astype(np.float32),
            answers[present, -1].astype(np.float32),
            masks=torch.cat([torch.zeros(0, side, side, device=self.net.device), *masks]),
            exclusive=False,
        )

    def _forget_absent(self, present: set[int]) -> None:
        self._absent = {i: 0 if i in present else self._absent.get(i, 0) + 1 for i in self._stores}
        if self.options.forget_after:
            self.remove([i for i, frames in self._absent.items() if frames >= self.options.forget_after])

    def _check(self, frame: Frame, prompts: Sequence[Prompt]) -> None:
        if self._size is None:
            raise UsageError("sam2: start(video) comes before the first step")
        if frame.hw != self._size:
            (height, width), (expected_height, expected_width) = frame.hw, self._size
            raise InputError(
                f"frame {frame.index} has {width}x{height} pixels, the video {expected_width}x{expected_height}: "
                "one size per run"
            )
        ids = [prompt.object_id for prompt in prompts]
        for prompt in prompts:
            where = f"object {prompt.object_id} on frame {frame.index}"
            if ids.count(prompt.object_id) > 1:
                raise UsageError(f"{where} is given twice")
            if prompt.mask is not None and prompt.mask.shape != frame.hw:
                raise UsageError(f"{where}: the mask has another size than the frame")

    def state_dict(self) -> State:
        """All state; a tracker of the same network and options that loads it continues bit-identically."""
        state: State = {"time": self._time, "absent": json.dumps(self._absent)}
        layout: dict[int, dict[str, list[int]]] = {}
        for i, stores in self._stores.items():
            layout[i] = {"cond": list(stores.cond), "other": list(stores.other)}
            for name, store in (("cond", stores.cond), ("other", stores.other)):
                for t, record in store.items():
                    tensors = {part: getattr(record, part) for part in _PARTS}
                    state |= {f"{name}.{i}.{t}.{k}": v.clone() for k, v in tensors.items() if v is not None}
        return state | {"layout": json.dumps(layout)}

    def load_state_dict(self, state: State) -> None:
        """Restore what :meth:`state_dict` gave; call :meth:`start` before."""
        tensors = {k: v.to(self.net.device, copy=True) for k, v in state.items() if isinstance(v, Tensor)}

        def record(prefix: str) -> Record:
            score, pointer = tensors[f"{prefix}.score"], tensors[f"{prefix}.ptr"]
            return Record(tensors.get(f"{prefix}.low"), score, pointer, tensors.get(f"{prefix}.mem"))

        self._time = int(state["time"])
        self._absent = {int(i): frames for i, frames in json.loads(str(state["absent"])).items()}
        self._stores = {
            int(i): Stores(*({t: record(f"{name}.{i}.{t}") for t in frames[name]} for name in ("cond", "other")))
            for i, frames in json.loads(str(state["layout"])).items()
        }


def _span(used: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and one past the last place that is set in every row (N, L), none of which is empty."""
    return used.argmax(1), used.shape[1] - used[:, ::-1].argmax(1)


def _equal(a: Sam2, b: Sam2) -> bool:
    """Are these the same network with the same weights, at the same place?"""
    if a.config != b.config or a.device != b.device:
        return False
    other = b.state_dict()
    return all(v.dtype == other[k].dtype and torch.equal(v, other[k]) for k, v in a.state_dict().items())
