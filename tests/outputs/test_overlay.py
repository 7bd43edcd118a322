"""The overlay: its styles, texts and sound."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import ImageFont

from exports import COUNT, SIZE, frame, result, square, write_run
from vidseg.errors import UsageError
from vidseg.masks import FrameMasks, bbox, color_of, encode
from vidseg.outputs import draw_masks, lettering, system_fonts
from vidseg.outputs.lettering import Lettering
from vidseg.outputs.overlay import Painter
from vidseg.outputs.style import OverlayStyle, parse_style
from vidseg.outputs.system_fonts import Font
from vidseg.video import open_source
from vidseg_pipelines.commands.export import ExportCommand

PLAIN = OverlayStyle(fill=0, contour=0, labels=False)


def test_a_style_is_read_from_its_text():
    assert parse_style(["fill=0.2,labels=no", "background=#00FF00,trails=12"]) == OverlayStyle(
        fill=0.2, labels=False, background="#00FF00", trails=12
    )
    assert parse_style([]) == OverlayStyle()
    assert parse_style(["background=green"]).backdrop == (0, 177, 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fil=1", r"unknown option 'fil' \(did you mean 'fill'\?\)"),
        ("fill=2", "fill=2: 0 to 1 expected"),
        ("contour=-1", "contour=-1: 0 to 20 expected"),
        ("background=red", "background=red: keep, dim, grey, blur, green or #rrggbb expected"),
        ("labels", "--overlay-style labels: expected KEY=VALUE"),
        ("trails=many", "--overlay-style: trails"),
    ],
)
def test_a_wrong_style_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_style([text])


def test_the_background_changes_and_the_objects_do_not():
    rgb = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    inside = square(2, 1) | square(2, 2)
    assert (draw_masks(rgb, result(2), PLAIN) == rgb).all()
    for background in ("dim", "grey", "blur", "green", "#102030"):
        drawn = draw_masks(rgb, result(2), replace(PLAIN, background=background))
        assert (drawn[inside] == rgb[inside]).all()
        assert (drawn[~inside] != rgb[~inside]).mean() > 0.5
    assert (drawn[~inside] == (0x10, 0x20, 0x30)).all()
    both = draw_masks(rgb, result(2), replace(PLAIN, background="dim", side_by_side=True))
    assert both.shape == (SIZE[0], 2 * SIZE[1], 3)
    assert (both[:, : SIZE[1]] == rgb).all()


def test_texts_never_cover_each_other():
    """Twenty objects at one place."""
    image = np.zeros((360, 640, 3), np.uint8)
    lettering = Lettering(image, 14)
    for k in range(20):
        lettering.write(f"{k} object", (300, 200, 310 + k, 210), (255, 255, 255))
    boxes = lettering._taken
    for (a, b, c, d), (e, f, g, h) in itertools.combinations(boxes, 2):
        assert a >= g or e >= c or b >= h or f >= d
    assert all(x >= 0 and y >= 0 and x2 <= 640 and y2 <= 360 for x, y, x2, y2 in boxes)


@pytest.mark.parametrize("name", ["Bär", "медведь", "熊", "αρκούδα", "דוב"])
def test_names_of_any_language_are_letters_and_not_boxes(name):
    """The letters of a name differ from each other and from those that the font lacks."""

    def drawn(text):
        image = np.zeros((60, 200, 3), np.uint8)
        Lettering(image, 24).write(text, (0, 50, 10, 60), (255, 255, 255))
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)

    missing = drawn("\ufffe")
    pictures = [drawn(letter) for letter in dict.fromkeys(name)]
    for a, b in itertools.combinations([missing, *pictures], 2):
        assert a.shape != b.shape or (a != b).any()


def drawn_label(text):
    image = np.full((60, 300, 3), 7, np.uint8)
    Lettering(image, 24).write(text, (0, 50, 10, 60), (255, 255, 255))
    return image


def test_letters_that_opencv_lacks_come_from_the_fonts_of_the_machine(tmp_path, monkeypatch):
    """Here from the one that Pillow brings, as if OpenCV had no capital letters."""
    (tmp_path / "a.ttf").write_bytes(ImageFont.load_default(20).font_bytes)
    font = Font(str(tmp_path / "a.ttf"), (0x41,), (0x5A,))
    monkeypatch.setattr(lettering, "_is_known", lambda letter: not letter.isupper())
    monkeypatch.setattr(lettering, "font_with", lambda letter: font.file if font.has(letter) else None)
    lettering._pieces.cache_clear()
    assert lettering._pieces("2 BÄR bear") == (("2 ", None), ("BR", font.file), (" bear", None))
    pictures = [drawn_label(text) for text in ("BIG", "big", "BIT", "2 BIG bear", "")]
    for a, b in itertools.combinations(pictures, 2):
        assert (a != b).any()
    assert (drawn_label("ÄÖ") == 7).all(), "nothing rather than question marks"
    lettering._pieces.cache_clear()


def test_what_no_font_has_is_left_out(monkeypatch):
    monkeypatch.setattr(lettering, "font_with", lambda letter: None)
    lettering._pieces.cache_clear()
    assert (drawn_label("3 แมวน้ำ 🐕\u200d🐕 0.9") == drawn_label("3 0.9")).all()
    assert (drawn_label("3 ?") != drawn_label("3")).any(), "a question mark in a name stays"
    lettering._pieces.cache_clear()


def test_the_list_of_fontconfig_is_read(tmp_path, monkeypatch):
    rows = ["/f/SomeSerif.ttf\tSome Serif\tBold\t20-7e e01-e3a", "/f/Some.ttf\tSome Sans\tRegular\t20 e01-e3a 1f415"]
    rows += ["/f/old.pcf.gz\tOld\tRegular\t20-7e", "broken"]
    (tmp_path / "list").write_text("\n".join(rows))
    (tmp_path / "fc-list").write_text(f"#!/bin/sh\n/bin/cat '{tmp_path}/list'\n")
    (tmp_path / "fc-list").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    system_fonts.installed.cache_clear()
    assert [font.file for font in system_fonts.installed()] == ["/f/Some.ttf", "/f/SomeSerif.ttf"]
    has = [system_fonts.installed()[0].has(letter) for letter in " !กฺ🐕"]
    assert has == [True, False, True, True, True]
    monkeypatch.setenv("PATH", "")
    system_fonts.installed.cache_clear()
    assert system_fonts.installed() == ()
    system_fonts.installed.cache_clear()


def test_trails_follow_the_centres_and_fade():
    style = OverlayStyle(fill=0, contour=0, labels=False, trails=3)
    painter = Painter(style)
    pictures = [painter.draw(frame(k).rgb, result(k)) for k in range(COUNT)]
    assert (pictures[0] != 100).any(2).sum() < (pictures[3] != 100).any(2).sum()
    early = (pictures[5] != 100).any(2)[:, :20]  # object 1 was there on frame 0 alone
    assert not early.any()
    assert (pictures[5][20, 5 * 5 + 9] == color_of(1)).all()


def test_a_mask_without_fill_has_its_contour():
    rle = encode(square(2, 1))
    masks = FrameMasks(0, 0, 0.0, (7,), bbox(rle)[None], np.ones(1, np.float32), (None,), (rle,))
    drawn = draw_masks(frame(0).rgb, masks, OverlayStyle(fill=0, contour=2, labels=False))
    changed = (drawn != 100).any(2)
    assert (drawn[changed] == color_of(7)).all()
    assert changed[10, 10:30].all() and not changed[15:25, 16:24].any()


def video_with_sound(path: Path, codec: str, seconds: int = 2) -> Path:
    """A tone of two seconds beside pictures that begin with it."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        pictures.codec_context.sample_aspect_ratio = Fraction(4, 3)
        sound = container.add_stream(codec, rate=48000)
        sound.layout = "mono"
        for _ in range(10 * seconds):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 100, np.uint8))))
        tone = (8000 * np.sin(np.arange(48000 * seconds) / 20)).astype(np.int16)[None]
        for start in range(0, tone.shape[1], 1024):
            part = av.AudioFrame.from_ndarray(np.ascontiguousarray(tone[:, start : start + 1024]), "s16", "mono")
            part.sample_rate, part.pts, part.time_base = 48000, start, Fraction(1, 48000)
            container.mux(sound.encode(part))
        container.mux(pictures.encode(None))
        container.mux(sound.encode(None))
    return path


@pytest.mark.parametrize(("suffix", "codec", "kept"), [("mp4", "aac", "aac"), ("avi", "pcm_s16le", "aac")])
def test_the_overlay_has_the_sound_and_the_shape_of_its_source(tmp_path, suffix, codec, kept):
    video = video_with_sound(tmp_path / f"v.{suffix}", codec)
    run = write_run(tmp_path / "run")
    assert ExportCommand(run, "overlay", input=str(video), overlay_style=("fill=0.2,scores=yes",)).run() == 0
    with av.open(str(run / "overlay.mp4")) as made:
        assert made.streams.video[0].sample_aspect_ratio == open_source(video).info.pixel_aspect
        assert made.streams.audio[0].codec_context.name == kept
        samples = list(made.decode(made.streams.audio[0]))
    seconds = sum(f.samples for f in samples) / samples[0].sample_rate
    assert COUNT / 10 - 0.1 <= seconds <= COUNT / 10 + 0.2  # of the frames that the run has
    loud = np.concatenate([f.to_ndarray().ravel() for f in samples]).astype(float)
    assert np.abs(loud).max() > 0.1 * (1 if loud.max() <= 1.5 else 32768)
