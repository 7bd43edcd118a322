"""What a name stands for, and that nothing secret of it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidseg.address import parse_address, redact
from vidseg.config import RunConfig
from vidseg.errors import InputError, UsageError
from vidseg_pipelines.batch.inputs import expand

CASES = {
    "rtsp://cam.local:554/live/1": "rtsp://cam.local:554/live/1",
    "rtsp://alice:hunter2@cam.local/live": "rtsp://***@cam.local/live",
    "RTSP://alice@cam.local/live": "RTSP://***@cam.local/live",
    "rtsp://alice:hun@ter2@cam.local/live": "rtsp://***@cam.local/live",
    "rtsp://alice:hunt/er2@cam.local/live": "rtsp://***@cam.local/live",
    "rtsp://alice:hunt?er2@cam.local/live": "rtsp://***@cam.local/live",
    "rtsp://alice:hunt#er2@cam.local/live": "rtsp://***@cam.local/live",
    "http://host/a.ts?token=s3cret&n=2": "http://host/a.ts?token=***&n=***",
    "http://host/a.ts?s3cret": "http://host/a.ts?***",
    "http://host/a.ts#s3cret": "http://host/a.ts#***",
    "rtsp://host/user=alice_password=hunter2_channel=1/x": "rtsp://host/user=***/x",
    "rtmp://host/app/s3cret": "rtmp://host/app/***",
    "ftp://alice:hunter2@host/x": "ftp://***@host/x",
    "videos/a?b=c.mp4": "videos/a?b=c.mp4",
    "-": "-",
}


@pytest.mark.parametrize(("text", "shown"), CASES.items())
def test_redaction(text, shown):
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("-", "stdin", "stdin"),
        ("camera:2", "camera", "camera2"),
        ("/dev/video0", "camera", "camera0"),
        ("a/b/clip.one.mp4", "file", "video"),
        ("http:video.mp4", "file", "video"),
        ("rtsp://alice:hunter2@cam.local/front/door.sdp?x=1", "stream", "door"),
        ("https://cam.local", "stream", "cam.local"),
        ("http://cam.local/..%2f..%2fx y", "stream", "2f"),
        ("rtmp://host/app/s3cret", "stream", "app"),
    ],
)
def test_kinds_and_names(text, kind, name):
    address = parse_address(text)
    assert (address.kind, address.name) == (kind, name)
    assert "hunter2" not in repr(address)


@pytest.mark.parametrize("text", ["ftp://alice:hunter2@host/x", "http:///x", "camera:front", "rtsp://[alice:hunter2/x"])
def test_what_is_refused(text):
    with pytest.raises(InputError) as caught:
        parse_address(text)
    assert "hunter2" not in str(caught.value) or text.startswith("rtsp://[")


def test_a_file_with_the_name_of_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ftp:").mkdir()
    Path("ftp:/x.mp4").write_bytes(b"x")
    assert parse_address("ftp://x.mp4").kind == "file"


def test_settings_and_batches_hold_no_secrets():
    url = "rtsp://alice:hunter2@cam.local/live?token=s3cret"
    config = RunConfig(input=url)
    assert "hunter2" not in str(config.content()) and "s3cret" not in str(config.content())
    with pytest.raises(UsageError, match=r"rtsp://\*\*\*@cam.local/live\?token=\*\*\*: an address with") as caught:
        list(expand([url], RunConfig()))
    assert "hunter2" not in str(caught.value)
    assert [r.config.input for r in expand(["rtsp://cam.local/live", "camera:0"], RunConfig())] == [
        "rtsp://cam.local/live",
        "camera:0",
    ]
