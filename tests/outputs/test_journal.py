"""The journal: its exact bytes, what a kill and a full disk leave, and reading it back."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from media import file_size_limit
from vidseg.errors import InputError, OutputError
from vidseg.masks import bbox, empty_rle, encode
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.trust import Signals
from vidseg.outputs import JournalSink, read_journal, truncate_journal
from vidseg.types import Frame

SIZE = 24, 32


def result(index: int, ids: tuple[int, ...] = (1, 2)) -> FrameMasks:
    rles = []
    for object_id in ids:
        mask = np.zeros(SIZE, np.bool_)
        mask[2 : 8 + object_id, index % 20 : index % 20 + 5 * object_id] = True
        rles.append(encode(mask))
    boxes = np.array([bbox(r) for r in rles], np.float32).reshape(-1, 4)
    scores = np.linspace(0.93, 0.1, len(ids)).astype(np.float32)
    labels = tuple("dög" if k else None for k in range(len(ids)))
    return FrameMasks(index, index * 512, index / 25, ids, boxes, scores, labels, tuple(rles))


def frame(index: int) -> Frame:
    return Frame(index, index * 512, index / 25, np.zeros((*SIZE, 3), np.uint8))


def write(path, indices, **keywords):
    sink = JournalSink(path, **keywords)
    for index in indices:
        sink.write(frame(index), result(index))
    sink.close()


def same(a: FrameMasks, b: FrameMasks) -> bool:
    exact = (a.frame_index, a.pts, a.time_s, a.ids, a.labels, a.rles) == (
        *(b.frame_index, b.pts, b.time_s, b.ids, b.labels, b.rles),
    )
    return exact and (a.boxes == b.boxes).all() and (a.scores == b.scores).all()


def test_the_format_is_exactly_this(tmp_path):
    sink = JournalSink(tmp_path / "j.jsonl")
    sink.write(frame(0), result(0, (1,)))
    sink.write(frame(1), result(1, ()))
    text = (tmp_path / "j.jsonl").read_text()  # before close: every line is in the file at once
    counts = result(0, (1,)).rles[0].counts.decode()
    assert text == (
        '{"frame":0,"pts":0,"time_s":0.0,"objects":[{"id":1,"box":[0.0,2.0,5.0,9.0],"score":0.93,"label":null,'
        '"rle":{"size":[24,32],"counts":' + json.dumps(counts) + "}}]}\n"
        '{"frame":1,"pts":512,"time_s":0.04,"objects":[]}\n'
    )
    sink.close()
    sink.close()


def test_signals_are_written_where_something_was_measured(tmp_path):
    sink = JournalSink(tmp_path / "j.jsonl")
    sink.write(frame(0), dataclasses.replace(result(0), signals=(Signals(certainty=0.91, since=12), None)))
    sink.close()
    assert b'"signals":{"certainty":0.91,"since":12}}' in (tmp_path / "j.jsonl").read_bytes()
    (masks,) = read_journal(tmp_path / "j.jsonl")
    assert masks.signals == (Signals(certainty=0.91, since=12), None)
    write(tmp_path / "old.jsonl", [0])
    assert [m.signals for m in read_journal(tmp_path / "old.jsonl")] == [(None, None)]


def test_everything_comes_back_exactly(tmp_path):
    write(tmp_path / "j.jsonl", range(30))
    assert all(same(a, result(k)) for k, a in enumerate(read_journal(tmp_path / "j.jsonl")))
    scores = np.random.default_rng(0).random(50, np.float32)
    many = [
        FrameMasks(k, k, k / 7, (1,), np.zeros((1, 4), np.float32), s[None], (None,), (empty_rle(*SIZE),))
        for k, s in enumerate(scores)
    ]
    sink = JournalSink(tmp_path / "s.jsonl")
    for masks in many:
        sink.write(frame(masks.frame_index), masks)
    sink.close()
    assert all(same(a, b) for a, b in zip(read_journal(tmp_path / "s.jsonl"), many, strict=True))


def test_continued_equals_uninterrupted_at_every_cut(tmp_path):
    write(tmp_path / "whole.jsonl", range(6))
    whole = (tmp_path / "whole.jsonl").read_bytes()
    for cut in range(0, len(whole) + 1, 37):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(whole[:cut])
        readable = list(read_journal(path))
        assert truncate_journal(path) == len(readable) == whole[:cut].count(b"\n")
        write(path, range(len(readable), 6), append=True)
        assert path.read_bytes() == whole


def test_truncate_before_a_frame(tmp_path):
    path = tmp_path / "j.jsonl"
    write(path, range(5, 15))
    assert truncate_journal(path, before=9) == 4
    assert [m.frame_index for m in read_journal(path)] == [5, 6, 7, 8]
    assert truncate_journal(path, before=100) == 4
    assert truncate_journal(path, before=0) == 0
    assert path.read_bytes() == b""


def test_a_full_disk_leaves_whole_lines(tmp_path):
    path = tmp_path / "j.jsonl"
    sink = JournalSink(path)
    with file_size_limit(1000), pytest.raises(OutputError, match=r"j\.jsonl: cannot write"):
        for index in range(100):
            sink.write(frame(index), result(index))
    written = list(read_journal(path))
    assert len(written) >= 2
    assert path.read_bytes().endswith(b"\n")
    sink.write(frame(len(written)), result(len(written)))  # space is back: it goes on where it was
    sink.close()
    assert all(same(a, result(k)) for k, a in enumerate(read_journal(path)))


@pytest.mark.parametrize(
    "line",
    [
        "text",
        "[]",
        "{}",
        "[" * 100_000,
        '{"frame":Infinity,"pts":0,"time_s":0,"objects":[]}',
        '{"frame":0,"pts":0,"time_s":0,"objects":[{"id":1}]}',
        '{"frame":0,"pts":0,"time_s":0,"objects":[{"id":1,"box":[0,0,1,1],"score":1,"label":null,'
        '"rle":{"size":[9,9],"counts":"oops"}}]}',
        '{"frame":0,"pts":0,"time_s":0,"objects":[{"id":1,"box":[0,0],"score":1,"label":null,'
        '"rle":{"size":[2,2],"counts":"4"}}]}',
        *(
            '{"frame":0,"pts":0,"time_s":0,"objects":[{"id":1,"box":[0,0,1,1],"score":1,"label":null,'
            '"rle":{"size":[2,2],"counts":"4"},"signals":' + signals + "}]}"
            for signals in ("[]", "7", '{"certainty":3}', '{"since":"long"}')
        ),
    ],
)
def test_a_foreign_line_is_named(tmp_path, line):
    write(tmp_path / "j.jsonl", range(2))
    with (tmp_path / "j.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=r"j\.jsonl, line 3"):
        list(read_journal(tmp_path / "j.jsonl"))


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        JournalSink(tmp_path / "missing" / "j.jsonl")
    with pytest.raises(InputError, match="no such journal"):
        list(read_journal(tmp_path / "none.jsonl"))
    sink = JournalSink(tmp_path / "j.jsonl")
    broken = FrameMasks(
        0, 0, 0.0, (1,), np.zeros((1, 4), np.float32), np.array([np.nan], np.float32), (None,), (empty_rle(*SIZE),)
    )
    with pytest.raises(OutputError, match="frame 0: a box or score"):
        sink.write(frame(0), broken)
    sink.close()
    assert (tmp_path / "j.jsonl").read_bytes() == b""


def test_a_line_keeps_the_name_of_the_frame_and_old_lines_have_none(tmp_path):
    write(tmp_path / "j.jsonl", [0])
    sink = JournalSink(tmp_path / "j.jsonl", append=True)
    sink.write(frame(1), dataclasses.replace(result(1), name="IMG_0012.JPG"))
    sink.close()
    assert [masks.name for masks in read_journal(tmp_path / "j.jsonl")] == [None, "IMG_0012.JPG"]


@pytest.mark.parametrize("name", ["../up.jpg", "/etc/passwd", "..", "", "a/b.png", "a\0b", 7])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    record = {"frame": 0, "pts": 0, "time_s": 0.0, "objects": [], "name": name}
    (tmp_path / "j.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError, match=r"line 1: not a line of a masks\.jsonl"):
        list(read_journal(tmp_path / "j.jsonl"))
