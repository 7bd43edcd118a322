"""Streams that stall, close and change size: connected again, nothing twice, what was lost is known."""

from __future__ import annotations

import threading
import time
from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest

from media import barcode_frame, read_barcode
from streams import SECRETS, Loopback, arrivals, http, rtsp, transport_stream
from vidseg.errors import InputError, UsageError
from vidseg.types import Frame, Gap, VideoInfo
from vidseg.video import Backoff, open_source
from vidseg.video.live import WAITING_FRAMES, LiveSource, newest

COUNT = 40
QUICK = Backoff(attempts=2, first_s=0.02, cap_s=0.05)


@pytest.fixture(scope="module")
def bodies(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("streams")
    return {
        "first": transport_stream(folder, range(COUNT)),
        "second": transport_stream(folder, range(100, 100 + COUNT)),
        "large": transport_stream(folder, range(200, 200 + COUNT), 240, 128),
    }


def check_order(frames: list[Frame]) -> None:
    assert [f.index for f in frames] == list(range(len(frames)))
    assert all(a.pts < b.pts and a.time_s < b.time_s for a, b in pairwise(frames))
    assert {f.hw for f in frames} == {frames[0].hw}


def check_codes(frames: list[Frame], *starts: int) -> list[int]:
    """One run of bar codes per connection; its last two may not be known to be whole. Gives the lengths of the runs."""
    codes = [read_barcode(f.rgb) for f in frames]
    edges = [0, *(n for n in range(1, len(codes)) if codes[n] != codes[n - 1] + 1), len(codes)]
    lengths = [b - a for a, b in pairwise(edges)]
    assert [codes[edge] for edge in edges[:-1]] == list(starts)
    assert all(COUNT - 2 <= length <= COUNT for length in lengths)
    return lengths


def test_stall_close_and_another_size(bodies):
    acts = [http(bodies["first"], stall=True), http(bodies["second"]), http(bodies["large"])]
    with Loopback(*acts) as server:
        source = open_source(server.url, drop="none", limit_s=2.0, backoff=QUICK)
        assert source.live and (source.info.width, source.info.height) == (120, 64)
        assert source.info.name == "door"
        frames = list(source)
        assert server.connections == 5  # two more in vain
    check_order(frames)
    first, second, _ = check_codes(frames, 0, 100, 200)
    gaps = {f.index: f.gap for f in frames if f.gap is not None}
    assert set(gaps) == {first, first + second}
    stalled, closed = gaps.values()
    assert (stalled.reconnects, stalled.dropped, stalled.source_size) == (1, 0, None)
    assert stalled.seconds >= 1.8 and "no data in time" in stalled.reason
    assert closed.reconnects == 1 and closed.source_size == (240, 128)
    step = frames[first].time_s - frames[first - 1].time_s
    assert step == pytest.approx(stalled.seconds, abs=0.01)  # the clock goes on while the stream does not
    assert frames[1].time_s == pytest.approx(0.2, abs=0.001)
    assert len(source.warnings) == 1 and "given up after 2 attempts" in source.warnings[0]
    said = repr((source.warnings, source.info, gaps))
    assert not any(secret in said for secret in SECRETS)


def test_another_size_within_a_connection(bodies):
    with Loopback(http(bodies["first"] + bodies["large"])) as server:
        frames = list(open_source(server.url, drop="none", limit_s=60.0, backoff=Backoff(0)))
    check_order(frames)
    assert [read_barcode(f.rgb) for f in frames] == [*range(COUNT), *range(200, 200 + COUNT)]
    assert [(f.index, f.gap) for f in frames if f.gap] == [(COUNT, Gap(source_size=(240, 128)))]


def test_another_shape_is_letterboxed(tmp_path, bodies):
    tall = transport_stream(tmp_path, range(COUNT), 120, 128)
    with Loopback(http(bodies["first"]), http(tall)) as server:
        frames = list(open_source(server.url, drop="none", limit_s=60.0, backoff=Backoff(1, 0.01)))
    picture = frames[COUNT + 1].rgb
    assert picture.shape == (64, 120, 3)
    assert not picture[:, :29].any() and not picture[:, 91:].any()
    assert read_barcode(np.ascontiguousarray(picture[:, 30:90])) == 1


def test_waits_grow_up_to_the_cap(bodies, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None: waits.append(timeout) or self.is_set())
    with Loopback(http(bodies["first"])) as server:
        list(open_source(server.url, drop="none", backoff=Backoff(attempts=7, first_s=1, cap_s=30)))
    assert [w for w in waits if w is not None and w >= 1] == [1, 2, 4, 8, 16, 30, 30]


def test_no_first_connection_is_an_error_at_once():
    with Loopback() as server:
        url = server.url
        with pytest.raises(InputError, match=r"http://\*\*\*@127.0.0.1:.*cannot be opened") as caught:
            open_source(url)
    assert server.connections == 1
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert caught.value.__cause__ is None  # FFmpeg's error names the whole URL; --debug would show it


def test_a_file_from_a_server_has_an_end(bodies):
    body = bodies["first"]
    with Loopback(http(body, length=len(body))) as server:
        source = open_source(server.url, limit_s=60.0)
        assert not source.live
        assert [read_barcode(f.rgb) for f in source] == list(range(COUNT))
    assert source.warnings == []


def test_a_file_from_a_server_that_breaks_off_is_an_error(bodies):
    body = bodies["first"]
    with Loopback(http(body, length=2 * len(body))) as server:
        source = open_source(server.url, limit_s=60.0)
        with pytest.raises(InputError, match="connection lost"):
            list(source)


@pytest.mark.parametrize("name", ["hls", "concat", "sdp"])
def test_a_server_cannot_send_a_playlist(bodies, name):
    with Loopback(http(bodies["first"], length=len(bodies["first"]))) as other:
        target = f"http://127.0.0.1:{other.port}/x.ts"
        body = {
            "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
            "concat": f"ffconcat version 1.0\nfile '{target}'\n",
            "sdp": f"v=0\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video {other.port} RTP/AVP 33\r\n",
        }[name].encode()
        with Loopback(http(body, length=len(body))) as server, pytest.raises(InputError, match="cannot be opened"):
            open_source(server.url, limit_s=60.0)
        assert other.connections == 0


def test_rtsp(bodies):
    with Loopback(rtsp(bodies["first"]), rtsp(bodies["second"])) as server:
        url = f"rtsp://{SECRETS[0]}:{SECRETS[1]}@127.0.0.1:{server.port}/user={SECRETS[2]}/live"
        source = open_source(url, drop="none", limit_s=60.0, backoff=Backoff(1, 0.01))
        frames = list(source)
    check_order(frames)
    first, _ = check_codes(frames, 0, 100)
    assert frames[first].gap is not None
    assert not any(secret in repr((source.warnings, frames[first].gap)) for secret in SECRETS)


def test_pictures_of_a_web_camera(tmp_path):
    """Motion JPEG as a multipart answer has no timestamps: time goes on all the same."""
    body = b""
    for number in range(COUNT):
        cv2.imwrite(str(tmp_path / "x.jpg"), barcode_frame(number)[..., ::-1])
        jpeg = (tmp_path / "x.jpg").read_bytes()
        body += b"--x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg)
    with Loopback(http(body)) as server:
        frames = list(open_source(server.url, drop="none", limit_s=60.0, backoff=Backoff(0)))
    check_order(frames)
    check_codes(frames, 0)


def test_rtmp_reaches_its_server_and_nothing_is_shown():
    with Loopback() as server:
        url = f"rtmp://{SECRETS[0]}:{SECRETS[1]}@127.0.0.1:{server.port}/live/{SECRETS[2]}"
        with pytest.raises(InputError, match=r"rtmp://\*\*\*@127.0.0.1:\d+/live/\*\*\*: cannot be opened"):
            open_source(url, limit_s=60.0)
        assert server.connections == 1


def test_the_oldest_frames_are_dropped_and_counted(bodies, monkeypatch):
    arrived = arrivals(monkeypatch)
    with Loopback(http(bodies["first"])) as server:
        source = open_source(server.url, drop="oldest", limit_s=60.0, backoff=Backoff(0))
        iterator = iter(source)
        first = next(iterator)
        assert arrived.wait(60)  # segmenting; meanwhile all other frames arrive
        frames = [first, *iterator]
    assert len(frames) in (WAITING_FRAMES, WAITING_FRAMES + 1)  # the first may have waited among the others
    check_order(frames)
    codes = [read_barcode(f.rgb) for f in frames]
    assert codes[1:] == list(range(codes[1], codes[1] + len(codes) - 1))
    assert codes[-1] >= COUNT - 3
    assert sum(f.gap.dropped for f in frames if f.gap) == codes[-1] + 1 - len(frames)


def test_gaps_of_dropped_frames_are_kept():
    rgb = np.zeros((8, 8, 3), np.uint8)
    gaps = {3: Gap(seconds=2.0, reconnects=1, reason="lost"), 6: Gap(source_size=(4, 4))}
    frames = [Frame(0, n, float(n), rgb, gaps.get(n)) for n in range(9)]
    started = threading.Event()

    def items():
        yield from frames
        started.set()

    iterator = newest(items(), 2)
    first = next(iterator)
    assert started.wait(60)
    rest = list(iterator)
    together = sum((f.gap for f in [first, *rest] if f.gap), Gap())
    assert rest[-1].pts == 8
    assert together == Gap(2.0, 1, 9 - 1 - len(rest), (4, 4), "lost")


@pytest.mark.parametrize("moment", ["waiting for a frame", "waiting to connect", "connecting"])
def test_stop_ends_every_wait(bodies, moment):
    """The limits are minutes: only :meth:`stop` can end the iteration in time."""
    slow = Backoff(5, 300.0, 300.0) if moment == "waiting to connect" else Backoff(5, 0.01)
    acts = [http(bodies["first"], stall=moment == "waiting for a frame")]
    acts += [lambda connection, server: server.over.wait()] if moment == "connecting" else []
    with Loopback(*acts) as server:  # type: ignore[arg-type]
        source = open_source(server.url, drop="none", limit_s=300.0, backoff=slow)
        frames: list[Frame] = []
        reader = threading.Thread(target=lambda: frames.extend(source), daemon=True)
        reader.start()
        while len(frames) < COUNT - 3 or (moment == "connecting" and server.connections < 2):
            time.sleep(0.05)
        time.sleep(0.2)
        source.stop()
        reader.join(60)
        assert not reader.is_alive()
    check_order(frames)


def test_part_of_a_stream(bodies):
    with Loopback(http(bodies["first"])) as server:
        frames = list(open_source(server.url, frames=slice(7, 12), drop="none", limit_s=60.0, backoff=Backoff(0)))
    assert [f.index for f in frames] == [read_barcode(f.rgb) for f in frames] == [7, 8, 9, 10, 11]


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"https://\*\*\*@example.org/x: a remote input, which --offline forbids"):
        open_source("https://alice:hunter2@example.org/x", offline=True)
    with pytest.raises(UsageError, match="is a file"):
        open_source(tmp_path / "x.mp4", drop="oldest")
    with pytest.raises(UsageError, match="reads video files only"):
        open_source("rtsp://example.org/x", reader="decord")
    with pytest.raises(InputError, match="no camera /dev/video987"):
        open_source("camera:987")


class Connection:
    """One that gives a frame, and then is lost."""

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    last_data = 0.0
    info = VideoInfo(120, 64, Fraction(5))

    def __init__(self):
        self.closed = False

    def __iter__(self):
        yield Frame(0, 0, 0.0, barcode_frame(0))

    def stop(self):
        pass

    def close(self):
        self.closed = True


def test_a_connection_made_after_the_end_is_closed():
    late, connecting, ended = Connection(), threading.Event(), threading.Event()

    def connect(watchdog):
        connecting.set()
        ended.wait(120)
        return late

    source = LiveSource(Connection(), connect, backoff=QUICK, drop_oldest=True, frames=slice(0, 1))
    assert [connecting.wait(120) for _ in source] == [True]
    ended.set()
    for thread in threading.enumerate():
        if thread.name == "vidseg-newest":
            thread.join(20)
    assert late.closed


def test_a_stop_is_heard_before_the_new_connection_begins():
    source = LiveSource(Connection(), lambda watchdog: pytest.fail("nobody wants a connection any more"), backoff=QUICK)
    source._stopped.wait = lambda seconds: bool(source.stop())  # in the moment after the wait
    assert len(list(source)) == 1


def test_a_connection_that_is_lost_while_the_source_closes_is_no_error():
    class Racing(LiveSource):
        _connection = property(
            lambda self: self.__dict__.pop("now", None), lambda self, value: self.__dict__.update(now=value)
        )

    first = Connection()
    Racing(first, lambda watchdog: first, backoff=QUICK).close()
    assert first.closed
