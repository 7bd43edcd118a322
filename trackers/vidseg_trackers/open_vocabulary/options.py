"""Every setting of the ``text`` detector, and how a text is taken apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vidseg.errors import UsageError
from vidseg.options import from_mapping

DEFAULT_MODEL = "IDEA-Research/grounding-dino-tiny"


@dataclass(frozen=True, slots=True)
class TextOptions:
    """Settings of the ``text`` detector."""

    text: str
    """What to find: phrases with full stops or commas between them."""
    model: str = DEFAULT_MODEL
    """Grounding DINO or OWLv2: a local folder with its files, or its name on the Hugging Face Hub."""
    box_threshold: float | None = None
    """Score (0..1) over which an object is reported; default: 0.35 for Grounding DINO, 0.1 for OWLv2, as published."""
    text_threshold: float | None = None
    """Grounding DINO: score (0..1) that a word must exceed for its phrase to name an object; default: 0.25."""

    def __post_init__(self) -> None:
        """Check values.

        Raises:
            UsageError: names the option, its value and what is allowed.
        """
        if not self.phrases:
            raise UsageError(f"--text {self.text!r}: nothing to look for; name objects, e.g. --text 'person. red car'")
        for name in ("box_threshold", "text_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"detector option {name} = {value}: 0 to 1 expected")
        if not self.model.strip():
            raise UsageError("detector option model is empty: a folder or a name on the Hugging Face Hub expected")

    @property
    def phrases(self) -> tuple[str, ...]:
        """The phrases of the text, each once."""
        parts = (" ".join(part.split()) for part in re.split(r"[.,;\n。，、；]", self.text))
        return tuple(dict.fromkeys(part for part in parts if re.search(r"\w", part)))

    @classmethod
    def from_mapping(cls, options: Mapping[str, object]) -> TextOptions:
        """Check names and types.

        Raises:
            UsageError: unknown option (with the closest name), a value of another type, or no text.
        """
        if options.get("text") is None:
            raise UsageError("--detect-with text: what is to be found? e.g. --text 'person. red car'")
        return from_mapping(cls, options, where="text detector")
