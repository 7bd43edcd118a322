"""What a state of a run depends on: its settings, its input, and what was said of the frames before it.

What is said of later frames does not change it. So a corrected run goes on from every state before its correction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

from vidseg.config import RunConfig
from vidseg.types import Prompt
from vidseg_pipelines.run_inputs import fingerprint_of_prompt

SAID = ("box", "point", "mask", "remove", "label", "first_found_id")
"""Settings that say something of objects on some frames, or number them."""
PRESENTED = ("save",)
"""Settings in the manifest that no state depends on."""


class MadeOf:
    """What the states of one run depend on."""

    def __init__(self, manifest: Mapping[str, Any], prompts: Sequence[Prompt], removals: Mapping[int, int]) -> None:
        """Of the run of ``manifest``, with all its prompts, and its removals (object id to frame)."""
        self.manifest = manifest
        defaults = RunConfig().content()
        settings = manifest["config"]
        self._settings = {  # a setting that an earlier revision did not have counts as its default
            key: settings[key] for key in sorted(settings) if settings[key] != defaults.get(key)
        }
        for key in (*SAID, *PRESENTED, "input"):
            self._settings.pop(key, None)
        self._input = {key: value for key, value in manifest["input"].items() if key != "path"}
        self._said = sorted(
            [(p.frame_index, p.object_id, fingerprint_of_prompt(p)) for p in prompts]
            + [(frame, object_id, "removed") for object_id, frame in removals.items()]
        )

    def in_files_of(self, earlier: Mapping[str, Any]) -> MadeOf:
        """The same, as the run of the manifest ``earlier``, which goes on, wrote it into its states."""
        found = copy(self)
        found.manifest = earlier
        return found

    def before(self, frame: int) -> str:
        """Digest of all that the state before a frame depends on."""
        content = [self._settings, self._input, [said for said in self._said if said[0] < frame]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def whole(self) -> str:
        """What earlier revisions wrote into states: a digest of all that was said, also later."""
        parts = {section: self.manifest[section] for section in ("config", "input", "prompts")}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def first_difference(self, other: MadeOf) -> int | None:
        """The first frame of which something else is said, or None."""
        return min((said[0] for said in {*self._said} ^ {*other._said}), default=None)
