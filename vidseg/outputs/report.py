"""A self-contained HTML page: when each object is visible, how large it is, and a few pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from vidseg.atomic_files import atomic_file
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.palette import color_of
from vidseg.masks.rle import area
from vidseg.outputs.layout import REPORT
from vidseg.outputs.overlay import draw_masks
from vidseg.outputs.recording import Recording
from vidseg.types import Frame, Gap

_BINS = 240  # columns of a timeline: the page has the same size for any length of video
_STYLE = (
    "body{font:14px sans-serif;margin:2em;max-width:72em}table{border-collapse:collapse;width:100%}"
    "td,th{padding:.3em .6em;text-align:left;border-bottom:1px solid #ddd}svg{display:block;width:100%;height:26px;"
    "background:#f3f3f3}figure{display:inline-block;margin:.3em}figcaption{font-size:12px}img{height:150px}"
)


class ThumbnailSink:
    """Keeps a few pictures spread over the whole video, whatever its length."""

    def __init__(self, limit: int = 6, height: int = 180) -> None:
        """Keep at most ``limit`` pictures, ``height`` pixels high."""
        self.pictures: dict[int, bytes] = {}
        """Frame index to JPEG."""
        self._limit, self._height, self._every, self._count = limit, height, 1, 0

    def write(self, frame: Frame, masks: FrameMasks) -> None:
        """Take a picture when its turn comes; when there are too many, every other one goes and turns get rarer."""
        if self._count % self._every == 0:
            if len(self.pictures) == self._limit:
                self.pictures = dict(list(self.pictures.items())[::2])
                self._every *= 2
            if self._count % self._every == 0:
                self.pictures[frame.index] = self._jpeg(frame, masks)
        self._count += 1

    def close(self) -> None:
        """Nothing to finish."""

    def _jpeg(self, frame: Frame, masks: FrameMasks) -> bytes:
        drawn = draw_masks(frame.rgb, masks)
        width = max(1, round(drawn.shape[1] * self._height / drawn.shape[0]))
        small = cv2.resize(drawn, (width, self._height), interpolation=cv2.INTER_AREA)
        return cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


@dataclass(slots=True)
class _Life:
    """What the page says of one object; areas are summed in bins that get wider as the video goes on."""

    label: str | None = None
    first: int = 0
    last: int = 0
    frames: int = 0
    score_sum: float = 0.0
    area_sum: int = 0
    bins: dict[int, int] = field(default_factory=dict)


def write_report(recording: Recording, folder: Path) -> Generator[None, FrameMasks | None, None]:
    """Write ``FOLDER/report.html``.

    Raises:
        OutputError: the page cannot be written.
    """
    duration, gap = 0.0, Gap()
    span = recording.end - recording.first  # more than the count where frames could not be read
    width = max(1, -(-span // _BINS))
    lives: dict[int, _Life] = {}
    while (masks := (yield)) is not None:
        duration, gap = masks.time_s, gap + masks.gap
        _add(lives, masks, (masks.frame_index - recording.first) // width)
    rows = "".join(_row(object_id, life, -(-span // width)) for object_id, life in sorted(lives.items()))
    figures = "".join(
        f'<figure><img alt="frame {index}" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
        f"<figcaption>frame {index}</figcaption></figure>"
        for index, jpeg in sorted(recording.pictures.items())
    )
    name = html.escape(recording.video)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style>'
        f"<h1>{name}</h1><p>{recording.count} frames, {len(lives)} objects, last frame at {duration:.2f} s.{_lost(gap)}"
        f"</p>{figures}"
        "<table><tr><th>object<th>label<th>frames<th>first<th>last<th>mean score<th>mean area"
        f'<th style="width:45%">area over time</tr>{rows}</table></html>\n'
    )
    with atomic_file(folder / REPORT) as file:
        file.write(page.encode())


def _lost(gap: Gap) -> str:
    if not gap.reconnects and not gap.dropped:
        return ""
    return f" Lost: {gap.seconds:.1f} s without connection, {gap.dropped} frames dropped."


def _add(lives: dict[int, _Life], masks: FrameMasks, place: int) -> None:
    for object_id, label, score, rle in zip(masks.ids, masks.labels, masks.scores, masks.rles, strict=True):
        pixels = area(rle)
        life = lives.setdefault(object_id, _Life(first=masks.frame_index))
        life.label = life.label or label
        life.last = masks.frame_index
        life.frames += 1
        life.score_sum += float(score)
        life.area_sum += pixels
        life.bins[place] = life.bins.get(place, 0) + pixels


def _row(object_id: int, life: _Life, columns: int) -> str:
    color = "#{:02x}{:02x}{:02x}".format(*color_of(object_id))
    top = max(life.bins.values())
    heights = {place: max(2, round(24 * np.sqrt(total / top))) for place, total in sorted(life.bins.items())}
    bars = "".join(f'<rect x="{x}" y="{26 - h}" width="1.02" height="{h}"/>' for x, h in heights.items())
    chart = f'<svg viewBox="0 0 {columns} 26" preserveAspectRatio="none" fill="{color}">{bars}</svg>'
    cells = (
        f'<span style="color:{color}">&#9632;</span> {object_id}',
        html.escape(life.label or ""),
        life.frames,
        life.first,
        life.last,
        f"{life.score_sum / life.frames:.2f}",
        f"{life.area_sum / life.frames:.0f} px",
        chart,
    )
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells) + "</tr>"
