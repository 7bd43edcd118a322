"""A machine without PyAV: folders of images are segmented, videos are refused in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2

from golden_masks import scene

WITHOUT = "import sys; sys.modules['av'] = None; from vidseg_pipelines.cli import main; sys.exit(main(sys.argv[1:]))"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT, *words], capture_output=True, text=True, check=False)


def test_images_are_segmented_and_videos_refused(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    cv2.imwrite(str(frames / "0.png"), scene(0)[..., ::-1])
    settings = ["--box", "44,59,137,152", "--output", str(tmp_path / "run"), "--device", "cpu"]
    done = run("run", str(frames), *settings, "--save", "davis")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "run" / "davis").iterdir())) == 1
    overlay = run("run", str(frames), *settings, "--save", "overlay", "--overwrite")
    assert overlay.returncode == 1 and "pip install av" in overlay.stderr.splitlines()[-1]
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    video = run("run", str(tmp_path / "a.mp4"), "--output", str(tmp_path / "other"))
    assert video.returncode == 3 and "needs PyAV" in video.stderr.splitlines()[-1]
