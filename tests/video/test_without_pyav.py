"""A machine without PyAV: folders of images are segmented, videos are refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2

from golden_masks import scene

WITHOUT = """
import json, sys
sys.modules["av"] = None
from vidseg_pipelines.cli import main
codes = []
for words in json.loads(sys.argv[1]):
    codes.append(main(words))
    print("END", file=sys.stderr)
print(json.dumps(codes))
"""


def run(*commands: list[str]) -> tuple[list[int], list[str]]:
    """Exit codes and what was said on the standard error, of commands one after the other in a process."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps(commands)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1]), done.stderr.split("END\n")


def test_images_are_segmented_and_videos_refused(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    cv2.imwrite(str(frames / "0.png"), scene(0)[..., ::-1])
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    settings = ["--box", "44,59,137,152", "--device", "cpu"]
    codes, told = run(
        ["run", str(frames), *settings, "--output", str(tmp_path / "run"), "--save", "davis"],
        ["run", str(frames), *settings, "--output", str(tmp_path / "drawn"), "--save", "overlay"],
        ["run", str(tmp_path / "a.mp4"), "--output", str(tmp_path / "other")],
    )
    assert codes == [0, 1, 3], told
    assert len(list((tmp_path / "run" / "davis").iterdir())) == 1
    assert "pip install av" in told[1].splitlines()[-1]
    assert "needs PyAV" in told[2].splitlines()[-1]
