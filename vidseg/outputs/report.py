"""A self-contained HTML page about a run: what was asked, what came out, and where to look closer."""

from __future__ import annotations

import base64
import html
import shlex
from collections.abc import Generator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.atomic_files import atomic_file
from vidseg.config import RunConfig
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.palette import hex_color
from vidseg.masks.rle import area
from vidseg.masks.trust import trust
from vidseg.outputs.layout import OVERLAY, REPORT
from vidseg.outputs.recording import Recording
from vidseg.outputs.thumbnails import Picture
from vidseg.types import Gap

_BINS = 240  # columns of a timeline: the page has the same size for any length of video
_DOUBTFUL, _BAD = 0.8, 0.6  # trust
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#667085;--line:#e3e7ee;--paper:#fff;--ground:#f5f7fa}
@media(prefers-color-scheme:dark){:root{--ink:#e8ebf0;--soft:#98a2b3;--line:#2c3442;--paper:#181d26;--ground:#10141b}}
*{box-sizing:border-box}body{font:15px/1.5 system-ui,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;color:var(--ink);
background:var(--ground);margin:0}main{max-width:1280px;margin:0 auto;padding:28px 24px 48px}h1{font-size:26px;margin:0}
h2{font-size:17px;margin:30px 0 10px}
.sub{color:var(--soft);margin:2px 0 0}section,figure,.facts{background:var(--paper);
border:1px solid var(--line);border-radius:10px}code{font:13px/1.5 ui-monospace,Menlo,Consolas,monospace;
overflow-wrap:anywhere}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:6px 18px;padding:14px 18px;margin:18px 0 0}
.facts dt{color:var(--soft)}.facts dd{margin:0}
.warn{color:#b54708}@media(prefers-color-scheme:dark){.warn{color:#fdb022}}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(360px,1fr));gap:14px}figure{margin:0;overflow:hidden}
figure img{display:block;width:100%;height:auto}figcaption{padding:8px 12px;font-size:13px;color:var(--soft)}
figcaption b{color:var(--ink)}table{border-collapse:collapse;width:100%}section{padding:4px 18px 10px;overflow-x:auto}
td,th{padding:9px 10px 9px 0;text-align:left;border-bottom:1px solid var(--line);white-space:nowrap;font-weight:400}
th{color:var(--soft);font-size:13px}tr:last-child td{border:0}td:last-child{width:52%;min-width:320px;padding-right:0}
svg{display:block;width:100%;height:38px;background:var(--ground);border-radius:4px}
.dot{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:8px;vertical-align:-1px}
.key{color:var(--soft);font-size:13px;margin:8px 0 0}
.key i{display:inline-block;width:18px;height:6px;border-radius:2px;
margin:0 6px 2px 14px}a{color:#1570ef}
"""


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
    lowest: dict[int, float] = field(default_factory=dict)
    """Least trust in a bin."""


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
    frames = [min(width, span - start) for start in range(0, span, width)]  # of each bin
    rows = "".join(_row(object_id, life, frames) for object_id, life in sorted(lives.items()))
    title = html.escape(recording.printable_video)
    objects = f"{len(lives)} object{'' if len(lives) == 1 else 's'}"
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style><main><h1>{title}</h1>"
        f'<p class="sub">{recording.count} frames, {objects}, last frame at {duration:.2f} s.{_lost(gap)}</p>'
        f"{_facts(recording, folder)}{_figures(recording.pictures)}<h2>Objects</h2><section><table>"
        "<tr><th>object<th>frames<th>first<th>last<th>mean score<th>mean area<th>area and certainty over time</tr>"
        f"{rows}</table>{_KEY}</section></main></html>\n"
    )
    with atomic_file(folder / REPORT) as file:
        file.write(page.encode())


_KEY = (
    '<p class="key">Height: area. Line below: least trust'
    f'<i style="background:#12b76a"></i>from {_DOUBTFUL} on<i style="background:#f79009"></i>from {_BAD} on'
    '<i style="background:#f04438"></i>below</p>'
)


def _facts(recording: Recording, folder: Path) -> str:
    """What was asked, with what, and what went wrong."""
    config: Mapping[str, Any] = recording.manifest.get("config") or {}
    facts: list[tuple[str, str]] = []
    if config:
        prompts = [
            f"{kind} {text}" for kind in ("box", "point", "mask", "boxes", "text") for text in _texts(config.get(kind))
        ]
        used = recording.manifest.get("used") or {}
        place = f" on {used.get('device')} in {used.get('dtype')}" if used else ""
        facts = [
            ("command", f"<code>{html.escape(command_of(config))}</code>"),
            ("model", html.escape(f"{config.get('model')}, tracker {config.get('tracker')}{place}")),
            ("prompts", html.escape(", ".join(prompts) or "none: the objects were found")),
        ]
    if (folder / OVERLAY).is_file():
        facts.append(("video", f'<a href="{OVERLAY}">{OVERLAY}</a>, next to this page'))
    elif (recording.journal.parent / OVERLAY).is_file():
        facts.append(("video", f"{OVERLAY}, in the folder of the run"))
    facts += [("warning", f'<span class="warn">{html.escape(text)}</span>') for text in recording.warnings]
    body = "".join(f"<dt>{name}<dd>{text}" for name, text in facts)
    return f'<dl class="facts">{body}</dl>' if body else ""


def _texts(value: object) -> list[str]:
    return [str(text) for text in value] if isinstance(value, (list, tuple)) else [str(value)] if value else []


def command_of(config: Mapping[str, Any]) -> str:
    """The command of a run, from the settings in its manifest: those that differ from the defaults."""
    words = ["vidseg", "run", str(config.get("input", ""))]
    for option in fields(RunConfig):
        default = option.default if option.default_factory is MISSING else option.default_factory()
        value = config.get(option.name, default)
        if option.name == "input" or value == default or (not value and not default):
            continue
        flag = f"--{option.name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, (list, tuple)):
            words += [word for text in value for word in (flag, str(text))]
        elif isinstance(value, Mapping):  # of a configuration file
            pairs = [f"{key}={inner}" for key, inner in value.items()]
            words += [word for pair in pairs for word in (flag.removesuffix("s"), pair)]
        else:
            words += [flag, str(value)]
    return shlex.join(words)


def _figures(pictures: Mapping[int, Picture]) -> str:
    """The doubtful images, the worst reasons in words, then the others."""
    groups = (
        ("Where to look first", [(k, p) for k, p in sorted(pictures.items()) if p.why]),
        ("Throughout the video", [(k, p) for k, p in sorted(pictures.items()) if not p.why]),
    )
    text = ""
    for title, chosen in groups:
        figures = "".join(
            f'<figure><img alt="frame {index}" src="data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}">'
            f"<figcaption><b>frame {index}</b> {html.escape(picture.why)}</figcaption></figure>"
            for index, picture in chosen
        )
        text += f'<h2>{title}</h2><div class="grid">{figures}</div>' if chosen else ""
    return text


def _lost(gap: Gap) -> str:
    if not gap.reconnects and not gap.dropped:
        return ""
    return f" Lost: {gap.seconds:.1f} s without connection, {gap.dropped} frames dropped."


def _add(lives: dict[int, _Life], masks: FrameMasks, place: int) -> None:
    rows = zip(masks.ids, masks.labels, masks.scores.tolist(), masks.rles, masks.signals, strict=True)
    for object_id, label, score, rle, signals in rows:
        pixels = area(rle)
        life = lives.setdefault(object_id, _Life(first=masks.frame_index))
        life.label = life.label or label
        life.last = masks.frame_index
        life.frames += 1
        life.score_sum += score
        life.area_sum += pixels
        life.bins[place] = life.bins.get(place, 0) + pixels
        life.lowest[place] = min(life.lowest.get(place, 1.0), trust(signals, score))


def _row(object_id: int, life: _Life, frames: Sequence[int]) -> str:
    """A row of the table; ``frames`` are those that each bin stands for."""
    color = hex_color(object_id)
    means = {place: total / frames[place] for place, total in sorted(life.bins.items())}
    top = max(means.values())
    heights = {place: max(2, round(26 * np.sqrt(mean / top))) for place, mean in means.items()}
    bars = "".join(f'<rect x="{x}" y="{28 - h}" width="1.02" height="{h}"/>' for x, h in heights.items())
    scores = "".join(
        f'<rect x="{x}" y="32" width="1.02" height="6" fill="{_color(least)}"/>'
        for x, least in sorted(life.lowest.items())
    )
    chart = f'<svg viewBox="0 0 {len(frames)} 38" preserveAspectRatio="none" fill="{color}">{bars}{scores}</svg>'
    cells = (
        f'<span class="dot" style="background:{color}"></span>{object_id} {html.escape(life.label or "")}',
        life.frames,
        life.first,
        life.last,
        f"{life.score_sum / life.frames:.2f}",
        f"{life.area_sum / life.frames:,.0f} px",
        chart,
    )
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells) + "</tr>"


def _color(trusted: float) -> str:
    return "#12b76a" if trusted >= _DOUBTFUL else "#f79009" if trusted >= _BAD else "#f04438"
