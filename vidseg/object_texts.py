"""What a user types of objects by their ids: ``ID=NAME`` and ``ID@FRAME``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vidseg.errors import UsageError
from vidseg.names import check_label, printable

_REMOVAL = re.compile(r"\s*(?P<id>\d+)@(?P<frame>\d+)\s*", re.ASCII)


def names_by_id(labels: Sequence[str], *, last_counts: bool = False) -> dict[int, str]:
    """``ID=NAME`` texts of ``--label`` as a mapping.

    With ``last_counts`` an object may get another name.

    Raises:
        UsageError: not ID=NAME, a name with control characters, or two names for one id.
    """
    names: dict[int, str] = {}
    for text in labels:
        number, equals, name = text.partition("=")
        if not equals or not number.strip().isdecimal() or int(number) < 1:
            raise UsageError(f"--label {printable(text)}: ID=NAME expected, e.g. 1=bear")
        name = check_label(f"--label of object {int(number)}", name.strip())
        if last_counts:
            names[int(number)] = name
        elif names.setdefault(int(number), name) != name:
            raise UsageError(f"--label: object {int(number)} has two names, '{names[int(number)]}' and '{name}'")
    return names


def parse_removals(texts: Sequence[str]) -> dict[int, int]:
    """``ID@FRAME`` texts of ``--remove``: object id to the frame from which on it is forgotten.

    Raises:
        UsageError: something else, or an id twice.
    """
    removals: dict[int, int] = {}
    for text in texts:
        match = _REMOVAL.fullmatch(text)
        if match is None or not int(match["id"]):
            raise UsageError(f"--remove {printable(text)}: ID@FRAME expected, e.g. 2@120")
        object_id, frame = int(match["id"]), int(match["frame"])
        if removals.setdefault(object_id, frame) != frame:
            raise UsageError(f"--remove: object {object_id} has two frames, {removals[object_id]} and {frame}")
    return removals
