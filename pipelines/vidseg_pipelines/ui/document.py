"""What the user said on the page: objects with names and colours, and where they were drawn. ``page.json`` of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vidseg.atomic_files import atomic_file
from vidseg.errors import UsageError
from vidseg.outputs.layout import PAGE

MAX_OBJECTS = 1000
_NAME_LENGTH = 80

# Bright and far apart on dark and light video, also for colour-blind eyes: Okabe and Ito (2008) without black, then
# tints and shades of them.
COLORS = (
    *("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2", "#b3e26b"),
    *("#ffd27a", "#a6dcff", "#5fe0b7", "#fff7a8", "#ff9c5c", "#f2b6d6", "#6fb7ff", "#c7a4ff"),
)


@dataclass
class PageObject:
    """One object: its name may be empty."""

    id: int
    name: str = ""
    color: str = ""


@dataclass
class Document:
    """Objects by id, and by frame and object what the user drew there (clicks, boxes, strokes), which is kept exact."""

    items: dict[int, PageObject] = field(default_factory=dict)
    keys: dict[int, dict[int, dict[str, Any]]] = field(default_factory=dict)
    highest: int = 0

    def ensure(self, ids: Iterable[int], names: dict[int, str] | None = None) -> None:
        """Make sure that objects of the journal are known."""
        for i in ids:
            if i not in self.items:
                self.items[i] = PageObject(i, (names or {}).get(i, ""), COLORS[(i - 1) % len(COLORS)])
                self.highest = max(self.highest, i)

    def new(self) -> int:
        """A new object; its id was never used.

        Raises:
            UsageError: there are too many.
        """
        if len(self.items) >= MAX_OBJECTS:
            raise UsageError(f"there are {MAX_OBJECTS} objects already: remove some first")
        self.highest += 1
        self.ensure([self.highest])
        return self.highest

    def known(self, object_id: int) -> PageObject:
        """The object of that id.

        Raises:
            UsageError: there is none.
        """
        if object_id not in self.items:
            raise UsageError(f"there is no object {object_id} any more")
        return self.items[object_id]

    def rename(self, object_id: int, name: str) -> None:
        """Name an object; an empty name takes it away."""
        self.known(object_id).name = " ".join("".join(c for c in name if c.isprintable()).split())[:_NAME_LENGTH]

    @property
    def names(self) -> dict[int, str]:
        """Names by id."""
        return {item.id: item.name for item in self.items.values()}

    def text(self) -> str:
        """All of it as json."""
        return json.dumps(
            {
                "objects": [asdict(item) for item in self.items.values()],
                "keys": {str(f): {str(i): what for i, what in row.items()} for f, row in self.keys.items() if row},
                "highest": self.highest,
            }
        )

    @classmethod
    def of(cls, text: str) -> Document:
        """What :meth:`text` gave.

        Raises:
            ValueError, LookupError, TypeError: something else.
        """
        data = json.loads(text)
        items = [PageObject(int(o["id"]), str(o["name"]), str(o["color"])) for o in data["objects"]]
        keys = {int(f): {int(i): dict(what) for i, what in row.items()} for f, row in data["keys"].items()}
        return cls({item.id: item for item in items}, keys, int(data["highest"]))

    def save(self, folder: Path) -> None:
        """Write it into the folder of a run.

        Raises:
            OutputError: it cannot be written.
        """
        with atomic_file(folder / PAGE) as file:
            file.write(self.text().encode())


def load_document(folder: Path) -> Document:
    """The document of a run; an empty one where there is none or it cannot be read: the masks are in the journal."""
    try:
        return Document.of((folder / PAGE).read_text("utf-8"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Document()
