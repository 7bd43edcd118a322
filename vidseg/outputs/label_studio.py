"""Label Studio: a task per frame with its masks as predictions (brush), and the labelling interface."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.palette import hex_color
from vidseg.masks.rle import decode
from vidseg.outputs.layout import LABEL_STUDIO
from vidseg.outputs.recording import Recording

_SIZES = (3, 4, 8, 16)  # bits of the length of a run, by the two bits before it
_CHANNELS = 4  # of the image that the run-lengths describe: red, green, blue, alpha


def write_label_studio(recording: Recording, folder: Path) -> Generator[None, FrameMasks | None, None]:
    """Write ``FOLDER/label-studio/tasks.json`` and ``config.xml``.

    The images are those of the format ``frames``, served from the folder above.

    Raises:
        InputError: the size of the frames is not known.
        OutputError: a file cannot be written.
    """
    height, width = recording.hw
    target = make_folder(folder / LABEL_STUDIO)
    colors = "".join(
        f"    <Label value={quoteattr(name)} background={quoteattr(hex_color(number))}/>\n"
        for number, name in enumerate(recording.classes.names, 1)
    )
    with atomic_file(target / "config.xml") as file:
        file.write(
            '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
            f'  <BrushLabels name="label" toName="image">\n{colors}  </BrushLabels>\n</View>\n'.encode()
        )
    with atomic_file(target / "tasks.json") as file:
        separator = b"["
        while (masks := (yield)) is not None:
            results: list[dict[str, Any]] = [
                {
                    "id": f"{masks.frame_index}-{object_id}",
                    "type": "brushlabels",
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "score": round(score, 6),
                    "meta": {"text": [f"object {object_id}"]},
                    "value": {
                        "format": "rle",
                        "rle": brush_rle(decode(rle)),
                        "brushlabels": [recording.classes.name_of(label)],
                    },
                }
                for object_id, score, label, rle in zip(
                    masks.ids, masks.scores.tolist(), masks.labels, masks.rles, strict=True
                )
            ]
            task = {
                "data": {"image": f"/data/local-files/?d=frames/{quote(recording.picture(masks))}"},
                "meta": {"video": recording.video, "frame": masks.frame_index},
                "predictions": [{"model_version": "vidseg", "result": results}],
            }
            file.write(separator + json.dumps(task).encode())
            separator = b",\n"
        file.write(b"[]\n" if separator == b"[" else b"]\n")


def brush_rle(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Run-lengths of a mask as Label Studio's brush packs them, as bytes.

    They describe the flat image of four channels, row by row. After 32 bits for its number of values, 5 for their
    width (8, minus one) and 4 for each size in ``_SIZES`` (minus one) follow the runs: a bit that says "one value", two
    for the size, the length minus one in so many bits, and the value.
    """
    flat = mask.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    lengths = np.diff(bounds) * _CHANNELS
    values = np.where(flat[bounds[:-1]], 255, 0)
    longest = 1 << _SIZES[-1]
    pieces = -(-lengths // longest)  # a run that is too long is several
    last = np.cumsum(pieces) - 1
    runs = np.full(int(pieces.sum()), longest)
    runs[last] = lengths - (pieces - 1) * longest
    kinds = np.searchsorted([1 << size for size in _SIZES], runs)
    sizes = np.array(_SIZES)[kinds]
    # all bits of a run as one number: 1, kind (2), length - 1 (size), value (8)
    words = (((4 + kinds) << sizes) + runs - 1 << 8) + np.repeat(values, pieces)
    widths = 3 + sizes + 8
    header = [(flat.size * _CHANNELS, 32), (8 - 1, 5), *((size - 1, 4) for size in _SIZES)]
    words = np.concatenate([[value for value, _ in header], words])
    widths = np.concatenate([[bits for _, bits in header], widths])
    ends = np.cumsum(widths)
    place = np.arange(ends[-1])
    word = np.searchsorted(ends, place, side="right")
    bits = words[word] >> (ends[word] - 1 - place) & 1
    return np.packbits(bits.astype(np.uint8)).tolist()
