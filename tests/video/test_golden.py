"""Index, timestamp and bar code of every frame of ten videos, as they were when somebody last looked."""

from __future__ import annotations

from pathlib import Path

from golden_videos import COUNT, GOLDEN, golden_lines


def test_every_frame_of_ten_videos(tmp_path: Path) -> None:
    lines = golden_lines(tmp_path)
    assert len({line.split()[0] for line in lines}) == 10
    assert lines == GOLDEN.read_text().splitlines()


def test_the_golden_file_says_what_it_should() -> None:
    codes: dict[str, list[int]] = {}
    for line in GOLDEN.read_text().splitlines():
        name, *fields = line.split()
        codes.setdefault(name, []).extend([int(fields[2])] if fields != ["refused"] else [])
    sound = list(range(COUNT))
    assert {name.split(".")[0]: found for name, found in codes.items()} == {
        **dict.fromkeys(("constant", "variable", "b_frames", "transport", "rotated"), sound),
        "edit_list": sound[3:],
        "truncated": sound[:7],
        "flipped": sound[:7] + sound[8:],
        "empty": [],
        "text": [],
    }
