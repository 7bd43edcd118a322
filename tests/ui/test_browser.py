"""The page in a real browser."""

import json
import resource
import signal
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra [ui] is not installed")

from browser import Page, Server, browser, served
from media import break_middle, write_video
from ui_toys import HEIGHT, WIDTH, fill, toy_video
from vidseg.outputs.journal import read_journal
from vidseg.video import open_source

SIZE = (WIDTH, HEIGHT)
CONTROL, SHIFT, DELETE, ENTER = "\ue009", "\ue008", "\ue017", "\ue007"


def frames_in(run: Path) -> list[int]:
    return [masks.frame_index for masks in read_journal(run / "masks.jsonl") if masks.ids]


@contextmanager
def opened(video: Path, seconds: float = 0.0) -> Iterator[tuple[Page, Server]]:
    """The page of a video in a window, when it shows the first frame; runs are in ``runs`` beside the video."""
    with browser() as page, served(video, video.parent / "runs", seconds) as server:
        page.driver.get(server.url)
        page.until("document.getElementById('canvas').dataset.frame === '0'")
        yield page, server


def paint(page: Page, end: float = 140) -> None:
    """A stroke along the lower edge, which is an object or adds to the selected one."""
    page.keys("b")
    page.drag((20, 85), (end, 85), SIZE)


def runs_to_the_end(page: Page) -> None:
    page.until("document.getElementById('toasts').innerText.includes('Done: ')")


def test_click_see_run_correct_undo_export_reload_and_come_back_after_a_kill(tmp_path: Path) -> None:
    video, run = toy_video(tmp_path / "square.mp4"), tmp_path / "runs" / "square"
    with browser() as page:
        with served(video, tmp_path / "runs") as server:
            page.driver.get(server.url)
            page.shows(0, "")
            page.drag((40, 30), (80, 66), SIZE)  # a box
            page.shows(0, "1")
            page.until("document.getElementById('busy').hidden")
            page.keys("n", "b")
            page.drag((20, 85), (140, 85), SIZE)  # a stroke, which is an object of its own
            page.shows(0, "1,2")
            red, _, blue = page.color_at((80, 85), SIZE)
            assert blue > red + 20, "object 2 is blue"
            page.keys(ENTER, "road", ENTER)
            page.until("document.querySelector('#objects li:nth-child(2) .name').value === 'road'")
            page.keys("r")
            runs_to_the_end(page)
            assert frames_in(run) == list(range(24))

            page.driver.execute_script("document.getElementById('toasts').replaceChildren()")
            page.keys("\ue010")  # End
            page.shows(23, "1,2")
            page.keys("e")
            page.drag((100, 85), (140, 85), SIZE)  # corrected on the last frame
            page.until("document.getElementById('undo').title.includes('eraser')")
            page.color_until((120, 85), SIZE, lambda *color: max(color) < 30 + min(color))
            page.chord(SHIFT, "r")
            runs_to_the_end(page)
            page.keys("\ue010")  # the picture went with the run
            page.shows(23, "1,2")
            page.chord(CONTROL, "z")
            page.chord(CONTROL, "z")
            page.until("document.getElementById('undo').title.includes('run')")
            page.color_until((120, 85), SIZE, lambda red, _, blue: blue > red + 20)  # what was erased is back

            page.keys("x")
            page.driver.execute_script("document.querySelector('[data-format=coco] button').click()")
            link = page.until("document.querySelector('[data-format=coco] a')?.href")
            text = page.driver.execute_async_script(
                "fetch(arguments[0]).then((answer) => answer.text()).then(arguments[1])", link
            )
            assert '"road"' in text
            page.keys("\ue00c")  # Esc

            page.driver.refresh()
            page.shows(23, "1,2")
            page.until("document.getElementById('undo').disabled === false")
            errors = [e for e in page.driver.get_log("browser") if e["level"] == "SEVERE"]
            assert errors == []
            server.end(signal.SIGKILL)

        with served(video, tmp_path / "runs") as server:
            page.driver.get(server.url)
            page.shows(0, "1,2")
            assert page.js("document.querySelector('#objects li:nth-child(2) .name').value") == "road"
            for what in ("run", "rename"):  # the steps are there too
                page.until(f"document.getElementById('undo').title.includes('{what}')")
                page.chord(CONTROL, "z")
            page.until("document.querySelector('#objects li:nth-child(2) .name').value === ''")
            for _ in range(2):
                page.chord(CONTROL, SHIFT, "z")
            page.until("document.getElementById('redo').title.includes('eraser')")
            assert server.end() == 0
    assert frames_in(run) == list(range(24))
    assert sorted(path.name for path in run.iterdir()) == ["exports", "history", "masks.jsonl", "page.json", "run.json"]


def test_a_kill_in_the_middle_of_a_backward_run_loses_nothing(tmp_path: Path) -> None:
    video, run = toy_video(tmp_path / "square.mp4"), tmp_path / "runs" / "square"
    with browser() as page:
        server = Server(video, tmp_path / "runs", seconds=0.1)
        page.driver.get(server.url)
        page.shows(0, "")
        page.keys("\ue010", "b")
        page.shows(23, "")
        page.drag((20, 85), (140, 85), SIZE)
        page.shows(23, "1")
        page.chord(SHIFT, "r")
        done = page.until(
            "Number(document.getElementById('progress').value) >= 5 && document.getElementById('progress').value"
        )
        server.end(signal.SIGKILL)
        page.until("document.getElementById('saved').textContent.includes('no connection')")
        page.keys("m", "r")
        page.until("document.getElementById('toasts').innerText.includes('this was not done. Try again.')")
        with served(video, tmp_path / "runs") as again:
            page.driver.get(again.url)
            page.shows(0, "")
            assert again.end(signal.SIGTERM) == 0
    frames = frames_in(run)
    assert frames == list(range(frames[0], 24))
    assert len(frames) >= done


def test_sigterm_in_the_middle_of_a_run_saves_everything(tmp_path: Path) -> None:
    video, run = toy_video(tmp_path / "square.mp4"), tmp_path / "runs" / "square"
    with opened(video, seconds=0.1) as (page, server):
        paint(page)
        page.shows(0, "1")
        page.keys("r")
        done = page.until(
            "Number(document.getElementById('progress').value) >= 3 && document.getElementById('progress').value"
        )
        assert server.end(signal.SIGTERM) == 0  # within the 15 seconds that it waits
    assert frames_in(run)[: done + 1] == list(range(done + 1))
    assert not (run / "changes.jsonl").exists()
    assert not (run / "run.lock").exists()


def test_sigterm_does_not_wait_for_what_takes_long(tmp_path: Path) -> None:
    from websockets.sync.client import connect

    video, run = toy_video(tmp_path / "square.mp4"), tmp_path / "runs" / "square"
    with served(video, tmp_path / "runs", seconds=60) as server:
        token = server.url.partition("token=")[2]
        with connect(f"{server.url.partition('/?')[0].replace('http', 'ws')}/{token}/socket", proxy=None) as socket:
            stroke = {"frame": 0, "id": None, "points": [[40, 40], [90, 40]], "radius": 9, "erase": False}
            run_it = {"do": "run", "frame": 0, "direction": "forward"}
            for message in ({"do": "open", "key": "square.mp4"}, {"do": "stroke", **stroke}, run_it):
                socket.send(json.dumps(message))
            while json.loads(socket.recv()).get("undo") != "run":
                pass
            assert server.end() == 0  # within the 15 seconds that it waits
    assert frames_in(run) == [0]


def test_a_video_that_breaks_in_the_middle_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = toy_video(tmp_path / "whole.mkv", 60).read_bytes()
    (tmp_path / "broken.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    with opened(tmp_path / "broken.mkv") as (page, _):
        page.until("document.getElementById('toasts').innerText.includes('truncated')")
        page.keys("\ue010")
        page.until("Number(document.getElementById('frame').value) > 3")
        page.until("document.getElementById('canvas').dataset.frame === document.getElementById('frame').value")
        last = int(page.js("document.getElementById('frame').value"))
        page.keys("\ue011")  # Home
        page.until("document.getElementById('canvas').dataset.frame === '0'")
        paint(page)
        page.shows(0, "1")
        page.keys("r")
        runs_to_the_end(page)
        assert frames_in(tmp_path / "runs" / "broken") == list(range(last + 1))


def test_a_video_with_a_break_in_its_middle_keeps_what_was_made_on_both_sides(tmp_path: Path) -> None:
    video = break_middle(toy_video(tmp_path / "broken.mp4", 60, g="10", bf="0"))
    count = sum(1 for _ in open_source(video))
    run = tmp_path / "runs" / "broken"
    with opened(video) as (page, server):
        paint(page)
        page.shows(0, "1")
        page.keys("\ue010", "n")  # End: behind the break, as it is listed
        page.shows(59, "")
        page.drag((20, 15), (140, 15), SIZE)
        page.shows(59, "2")
        page.keys("\ue011", "r")  # Home
        page.until("document.getElementById('toasts').innerText.includes('The run ended early')")
        told = page.js("document.getElementById('toasts').innerText")
        assert f"60 frames were listed, {count} can be decoded" in told
        page.until(f"document.getElementById('frame-count').textContent === '/ {count - 1}'")
        kept = frames_in(run)
        assert kept == [*range(len(kept) - 1), count - 1]
        assert 10 < len(kept) < count
        page.until(f"document.getElementById('canvas').dataset.frame === '{kept[-2]}'")
        page.keys("r")
        runs_to_the_end(page)
        assert frames_in(run) == list(range(count))
        page.keys("\ue010")
        page.shows(count - 1, "1,2")
        page.keys("x")
        page.driver.execute_script("document.querySelector('[data-format=frames] button').click()")
        page.until("document.querySelector('[data-format=frames] a')?.href")
        assert server.end() == 0
    with zipfile.ZipFile(run / "exports" / "frames" / "frames.zip") as pictures:
        assert len(pictures.namelist()) == count
    with opened(video) as (page, _):  # the numbers are right from the start
        assert page.js("document.getElementById('frame-count').textContent") == f"/ {count - 1}"


def test_at_every_width_all_buttons_are_in_sight_and_what_is_no_place_changes_nothing(tmp_path: Path) -> None:
    outside = (
        "[...document.querySelectorAll('.bar button, .tools button, .transport button, .transport label')]"
        ".filter((one) => one.checkVisibility()).filter((one) => { const { left, right } = one.getBoundingClientRect();"
        " return left < 0 || right > innerWidth; }).map((one) => one.id || one.innerText)"
    )
    video = toy_video(tmp_path / "square.mp4", 4)
    with opened(video) as (page, server):
        for width in (1024, 390):
            size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
            page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            page.until(f"innerWidth === {width}")
            assert page.js(outside) == []
            assert page.js("document.getElementById('only').checkVisibility()")
            assert page.js("document.getElementById('canvas').clientWidth / innerWidth") > 0.7
        for typed, frame in (("3", "3"), ("two", "3"), ("-5", "0")):
            page.driver.execute_script(
                "const field = document.getElementById('frame'); field.value = arguments[0];"
                " field.dispatchEvent(new Event('change'))",
                typed,
            )
            assert page.js("document.getElementById('frame').value") == frame
        for right in (False, True):
            page.driver.execute_script("document.getElementById('toasts').replaceChildren()")
            page.press((-1.5, 40), SIZE, right=right)
            said = page.js("document.getElementById('toasts').innerText")  # at once, whatever the server is doing
            assert said == "This click lies outside the picture."
        assert page.js("document.querySelectorAll('#objects li').length") == 0
        assert server.end() == 0
    assert not (tmp_path / "runs" / "square").exists(), "who only looks leaves nothing behind"


def test_a_run_is_paused_goes_on_is_stopped_and_follows_one_object_alone(tmp_path: Path) -> None:
    video, run = toy_video(tmp_path / "square.mp4", 40), tmp_path / "runs" / "square"
    done = "Number(document.getElementById('progress').value)"
    with opened(video, seconds=0.1) as (page, server):
        paint(page, 60)
        page.shows(0, "1")
        page.keys("n")
        page.drag((100, 15), (140, 15), SIZE)
        page.shows(0, "1,2")
        page.keys("r")
        page.until(f"{done} >= 3")
        page.keys("p")
        page.until("document.getElementById('pause').textContent === 'Go on'")
        paused = page.js(done)
        time.sleep(0.5)
        assert page.js(done) == paused < 39
        page.driver.execute_script("document.getElementById('pause').click()")
        page.until(f"{done} > {paused}")
        page.keys("\ue00c")  # Esc
        page.until("document.getElementById('running').hidden")
        stopped = frames_in(run)
        assert stopped == list(range(len(stopped)))
        assert paused < len(stopped) < 40

        page.keys("\ue011", "e")  # Home: object 1 goes, object 2 is followed alone
        page.shows(0, "1,2")
        page.driver.execute_script("document.querySelector('#objects li').click()")
        page.drag((10, 85), (70, 85), SIZE)
        page.shows(0, "2")
        page.driver.execute_script("document.getElementById('only').click()")
        page.keys("2", "r")
        runs_to_the_end(page)
        page.keys("\ue010")  # End
        page.shows(39, "2")
        assert server.end() == 0
    ids = [masks.ids for masks in read_journal(run / "masks.jsonl")]
    assert ids == [(2,), *[(1, 2)] * (len(stopped) - 1), *[(2,)] * (40 - len(stopped))]


def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(tmp_path: Path) -> None:
    video, run = toy_video(tmp_path / "square.mp4"), tmp_path / "runs" / "square"
    with opened(video, seconds=0.05) as (page, server):
        paint(page)
        page.shows(0, "1")
        page.until("document.getElementById('saved').textContent === 'saved'")
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        full = (run / "masks.jsonl").stat().st_size * 6
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (full, limits[1]))
        page.keys("r")
        page.until("document.getElementById('toasts').innerText.includes('cannot write')")
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
        kept = frames_in(run)
        assert kept == list(range(len(kept)))
        assert 1 < len(kept) < 24
        page.until(f"document.getElementById('canvas').dataset.frame === '{kept[-1]}'")
        page.keys("r")
        runs_to_the_end(page)
        assert frames_in(run) == list(range(24))
        assert server.end() == 0


def test_a_run_goes_on_while_no_page_is_open(tmp_path: Path) -> None:
    video, run = toy_video(tmp_path / "square.mp4", 40), tmp_path / "runs" / "square"
    with opened(video, seconds=0.1) as (page, server):
        paint(page)
        page.shows(0, "1")
        page.keys("r")
        page.until("Number(document.getElementById('progress').value) >= 2")
        page.driver.get("about:blank")  # closed in the middle of the run
        page.driver.get(server.url)
        page.shows(0, "1")
        page.until("document.getElementById('running').hidden")
        page.keys("\ue010")  # End
        page.shows(39, "1")
        assert server.end() == 0
    assert frames_in(run) == list(range(40))


def test_a_second_window_is_told_and_may_take_over(tmp_path: Path) -> None:
    video = toy_video(tmp_path / "square.mp4", 4)
    with opened(video) as (page, server):
        page.driver.switch_to.new_window("window")
        page.driver.get(server.url)
        page.shows(0, "")
        assert page.js("document.getElementById('banner').innerText").startswith("This video is open in another window")
        page.driver.execute_script("document.querySelector('#banner button').click()")
        page.until("document.getElementById('banner').hidden")


def test_sixty_objects_and_three_thousand_frames_stay_within_bounds(tmp_path: Path) -> None:
    video = write_video(
        tmp_path / "long.mp4", [np.full((32, 48, 3), 40, np.uint8)] * 3000, options={"preset": "ultrafast"}
    )
    fill(tmp_path / "runs" / "long", 60, 3000, (32, 48))
    with opened(video) as (page, _):
        page.until("document.querySelectorAll('#objects li').length === 60")
        page.until("document.getElementById('canvas').dataset.objects.split(',').length === 60")
        for frame in (100, 1500, 2999):
            page.keys("g")
            page.keys(str(frame), ENTER)
            page.until(f"document.getElementById('canvas').dataset.frame === '{frame}'")
        page.driver.execute_script("document.querySelector('#objects li:nth-child(50)').click()")
        page.until("document.getElementById('timeline').scrollTop >= 49 * 22 - 148 + 24")  # its row is in sight
        canvas = page.js(
            "[document.querySelector('#timeline canvas').width, document.querySelector('#timeline canvas').height]"
        )
        assert canvas[0] <= 2600
        assert canvas[1] <= 400, "only the rows in sight are drawn"
        assert page.js("performance.memory.usedJSHeapSize") < 100e6
        assert page.js("document.getElementsByTagName('*').length") < 1500
