"""A run becomes a sample of FiftyOne and comes back as prompts; FiftyOne itself is a stand-in with its fields."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from toys import frames
from vidseg.errors import UsageError
from vidseg.integrations import fiftyone
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs.journal import journal_line


class Sample(SimpleNamespace):
    def __init__(self, filepath: str) -> None:
        super().__init__(filepath=filepath, frames={}, metadata=None)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = SimpleNamespace(
        Sample=Sample, Frame=SimpleNamespace, Detections=SimpleNamespace, Detection=SimpleNamespace
    )
    monkeypatch.setitem(sys.modules, "fiftyone", made)


def write_run(folder: Path) -> np.ndarray:
    labels = np.zeros((48, 64), np.uint8)
    labels[10:20, 8:40] = 3
    (folder / "run.json").write_text(json.dumps({"status": "done", "input": {"path": "/videos/dog.mp4"}}))
    with (folder / "masks.jsonl").open("wb") as file:
        for frame in frames(2, 48, 64):
            places = {3: (slice(None), slice(None))}
            scores = np.array([0.5], np.float32)
            file.write(journal_line(FrameMasks.from_label_map(frame, labels, [3], scores, ["dog"], places)))
    return labels == 3


def test_there_and_back(tmp_path: Path, stand_in: None) -> None:
    mask = write_run(tmp_path)
    sample = fiftyone.to_sample(tmp_path)
    assert sample.filepath == "/videos/dog.mp4" and sorted(sample.frames) == [1, 2]  # theirs begin at 1
    (one,) = sample.frames[1].vidseg.detections
    assert one.label == "dog" and one.index == 3 and one.confidence == 0.5
    assert one.bounding_box == [8 / 64, 10 / 48, 32 / 64, 10 / 48] and one.mask.shape == (10, 32)
    with pytest.raises(UsageError, match="compute_metadata"):
        fiftyone.to_prompts(sample)
    sample.metadata = SimpleNamespace(frame_width=64, frame_height=48)
    (prompt,) = fiftyone.to_prompts(sample)
    assert (prompt.frame_index, prompt.object_id, prompt.label) == (0, 3, "dog")
    assert np.array_equal(prompt.mask, mask)
    assert [p.frame_index for p in fiftyone.to_prompts(sample, frames=[1])] == [1]
    one.mask = None
    assert fiftyone.to_prompts(sample)[0].box == (8, 10, 40, 20)
    with pytest.raises(UsageError, match="no detections"):
        fiftyone.to_prompts(sample, "other")


def test_without_fiftyone_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(UsageError, match="pip install fiftyone"):
        fiftyone.to_sample(tmp_path)
