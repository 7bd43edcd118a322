"""Names of objects and classes, and the numbers that files give them."""

from __future__ import annotations

import json

import pytest

from vidseg.classes import ClassSet, read_classes
from vidseg.errors import UsageError
from vidseg.object_texts import names_by_id
from vidseg.prompt_text import check_prompts
from vidseg.types import Prompt

FORMS = {
    "lines.txt": "bear\n\n  brown fox \n",
    "list.json": '["bear", "brown fox"]',
    "numbers.yaml": "1: bear\n2: brown fox\n",
    "names.yaml": "brown fox: 2\nbear: 1\n",
    "coco.json": json.dumps({"categories": [{"id": 2, "name": "brown fox"}, {"id": 1, "name": "bear"}]}),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_class_file_gives_names_and_numbers(tmp_path, name):
    (tmp_path / name).write_text(FORMS[name])
    assert list(read_classes(tmp_path / name).ids.items()) == [("bear", 1), ("brown fox", 2)]


def test_a_data_yaml_counts_from_zero(tmp_path):
    (tmp_path / "data.yaml").write_text("path: .\nnames: [bear, fox]\n")
    assert read_classes(tmp_path / "data.yaml").ids == {"bear": 0, "fox": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "bear\nfox\nbear\n", "'bear' appears twice, as 1 and 3"),
        ("a.txt", "\n \n", "no names in it"),
        ("a.txt", "be\x1bar\n", r"class 1: the name 'be\?ar' has control characters"),
        ("a.json", '{"bear": 1, "fox": 1}', "the number 1 of 'fox' is used twice"),
        ("a.json", '{"bear": -1}', "the number -1 of 'bear' is below 0"),
        ("a.json", '{"bear": "x"}', "a list of names, a mapping of numbers and names, or COCO"),
        ("a.json", "3", "a list of names, a mapping of numbers and names, or COCO"),
        ("a.json", "{", "a list of names, a mapping of numbers and names, or COCO"),
    ],
)
def test_a_wrong_class_file_is_refused_in_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        read_classes(tmp_path / name)


def test_a_class_file_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"--classes .*none\.txt"):
        read_classes(tmp_path / "none.txt")


def test_numbers_of_names_outside_the_set():
    assert ClassSet({}).including(["dog", "cat", None]).ids == {"cat": 1, "dog": 2, "object": 3}
    assert ClassSet({}).including([None]).ids == {"object": 1}
    assert ClassSet({}).including(["7", "3", "ant"]).ids == {"3": 3, "7": 7, "ant": 8}  # a detector without names
    given = ClassSet({"fox": 2, "bear": 5})
    assert given.including(["fox"]).ids == {"fox": 2, "bear": 5}
    assert given.including(["ant", "5", None]).ids == {"fox": 2, "bear": 5, "5": 6, "ant": 7, "object": 8}
    assert given.including(["object", None]).id_of(None) == given.including(["object", None]).id_of("object")
    assert given.rank_of("bear") == 2


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["bear"], r"--label bear: ID=NAME expected"),
        (["0=bear"], "ID=NAME expected"),
        (["1="], "--label of object 1: an empty name"),
        (["1=a\nb"], "has control characters"),
        (["1=bear", "1=fox"], "object 1 has two names, 'bear' and 'fox'"),
    ],
)
def test_a_wrong_label_is_refused(texts, message):
    with pytest.raises(UsageError, match=message):
        names_by_id(texts)


def test_labels_by_id():
    assert names_by_id(["1=bear", "2=bear", "30=Bär = 熊"]) == {1: "bear", 2: "bear", 30: "Bär = 熊"}


def test_prompts_carry_names():
    box = (0, 0, 9, 9)
    check_prompts([Prompt(0, 1, box, label="bear"), Prompt(5, 1, box), Prompt(0, 2, box, label="bear")])
    with pytest.raises(UsageError, match="object 1 has two names, 'bear' and 'fox'"):
        check_prompts([Prompt(0, 1, box, label="bear"), Prompt(5, 1, box, label="fox")])
    with pytest.raises(UsageError, match="object 1: the name 'a\\?' has control characters"):
        Prompt(0, 1, box, label="a\x00")
