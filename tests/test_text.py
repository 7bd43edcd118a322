"""Files of other tools: every Unicode encoding, and numbers in every spelling."""

from __future__ import annotations

import codecs

import pytest

from vidseg.errors import InputError
from vidseg.text import number, read_json, read_text, whole

ENCODINGS = {
    "plain": "bär\r\ndog\r\n".encode(),
    "mark": codecs.BOM_UTF8 + "bär\r\ndog\r\n".encode(),
    "PowerShell": codecs.BOM_UTF16_LE + "bär\r\ndog\r\n".encode("utf-16-le"),
    "big endian": codecs.BOM_UTF16_BE + "bär\r\ndog\r\n".encode("utf-16-be"),
    "no mark": "bär\ndog\n".encode("utf-16-le"),
    "old Mac": "bär\rdog\r".encode(),
}


@pytest.mark.parametrize("data", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_text_is_read_whatever_its_encoding_and_line_ends(tmp_path, data):
    (tmp_path / "t.txt").write_bytes(data)
    assert read_text(tmp_path / "t.txt") == "bär\ndog\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_is_read_whatever_its_encoding(tmp_path, encoding):
    (tmp_path / "t.json").write_text('{"a": "ü"}', encoding=encoding)
    assert read_json(tmp_path / "t.json") == {"a": "ü"}


def test_what_cannot_be_read_is_named_with_its_place(tmp_path):
    (tmp_path / "ansi.txt").write_bytes("ok\nbär\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"ansi\.txt, line 2: not utf-8 text \(byte 0xe4\); save it as UTF-8"):
        read_text(tmp_path / "ansi.txt")
    assert read_text(tmp_path / "ansi.txt", errors="replace").startswith("ok\nb")
    with pytest.raises(InputError, match=r"none\.txt: file not found"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path)
    (tmp_path / "half.json").write_text("[1,")
    with pytest.raises(InputError, match=r"half\.json: not json"):
        read_json(tmp_path / "half.json")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(7, 7), (7.0, 7), ("7", 7), (" 007 ", 7), ("7.0", 7), (-1, -1), ("-1", -1), (0, 0)]
    + [(value, None) for value in (7.5, "7.5", "7a", "", None, True, [7], float("nan"), float("inf"), "١")],
)
def test_whole_numbers_in_every_spelling(value, expected):
    assert whole(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.5, 0.5), (1, 1.0), (" 0.5", 0.5), ("1e-3", 0.001)]
    + [(value, None) for value in ("high", "nan", "inf", float("nan"), None, True, [1], 10**400)],
)
def test_numbers_in_every_spelling(value, expected):
    assert number(value) == expected
