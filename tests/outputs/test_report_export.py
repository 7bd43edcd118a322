"""Reports that are made after the run."""

from pathlib import Path

import pytest

from ui_toys import HEIGHT, WIDTH, fill, toy_video
from vidseg_pipelines.cli import main


def test_an_exported_report_has_pictures_of_the_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "run", 2, 5, (HEIGHT, WIDTH))
    video, page = toy_video(tmp_path / "square.mp4", 5), tmp_path / "run" / "report.html"
    assert main(["export", str(tmp_path / "run"), "--to", "report", "--input", str(video)]) == 0
    assert "Throughout the video" in page.read_text() and page.read_text().count("<img ") >= 3
    assert main(["export", str(tmp_path / "run"), "--to", "report"]) == 5
    assert "report: without the frames' images" in capsys.readouterr().err
    assert "<img " not in page.read_text() and "2 objects" in page.read_text()


def test_the_last_column_of_a_timeline_is_as_high_as_the_others(tmp_path: Path) -> None:
    fill(tmp_path / "run", 1, 289, (HEIGHT, WIDTH))  # an odd number: a column stands for two frames
    main(["export", str(tmp_path / "run"), "--to", "report"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'viewBox="0 0 145 38"' in page
    assert page.count('y="2" width="1.02" height="26"') == 145
