"""``vidseg weights``: what a user sees and the exit codes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sam_oracle import MINI_VIT, mini_state
from vidseg.loading import load_sam
from vidseg.weights.catalog import CATALOG
from vidseg_pipelines.cli import main

HQ = ("hf_token", "hf_mlp", "compress_vit_feat", "embedding_encoder", "embedding_maskfeature")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDSEG_WEIGHTS", str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list"]) == 0
    text = capsys.readouterr().out
    assert "sam-hq-vit-l" in text and "1,255 MB" in text and "CC-BY-NC-4.0" in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    for name, entry in CATALOG.items():  # on one line with its licence
        assert any(line.startswith(f"{name} ") and entry.licence in line for line in lines), name
    heads = [line for line in lines if line.startswith(("Image models", "Trackers", "Detectors"))]
    assert len(heads) == 3
    assert main(["weights", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} == set(CATALOG)
    assert next(r for r in rows if r["name"] == "sam-hq-vit-b")["sha256"].startswith("14a9d662")


def test_verify(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir()
    file = folder / "mobile_sam.pt"
    file.write_bytes(b"content")
    toy = replace(CATALOG["mobile-sam"], size=7, sha256=hashlib.sha256(b"content").hexdigest())
    monkeypatch.setitem(CATALOG, "mobile-sam", toy)
    assert main(["weights", "verify", str(file), "mobile-sam"]) == 0
    assert capsys.readouterr().out.count(": ok") == 2
    file.write_bytes(b"contenT")
    assert main(["weights", "verify", "mobile-sam"]) == 4
    assert "sha256" in capsys.readouterr().out
    assert main(["weights", "verify", "xmem"]) == 4
    assert "not on this machine" in capsys.readouterr().out
    assert main(["weights", "verify", "other.pth"]) == 2


def test_fetch_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "fetch", "sam-hq-vit-x"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["weights", "fetch", "compact"]) == 2
    assert main(["weights", "fetch"]) == 2


def test_fetch_of_what_is_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir()
    (folder / "XMem.pth").write_bytes(b"x")
    assert main(["weights", "fetch", "xmem"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "XMem.pth")


def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = mini_state()
    torch.save(state, tmp_path / "hq.pth")
    assert main(["weights", "convert", str(tmp_path / "hq.pth")]) == 0
    target = tmp_path / "hq.safetensors"
    assert capsys.readouterr().out.strip() == str(target)
    assert load_sam(target).config == MINI_VIT
    assert main(["weights", "convert", str(tmp_path / "hq.pth")]) == 2
    assert "add --overwrite" in capsys.readouterr().err


def test_convert_joins_a_trained_decoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = mini_state()
    torch.save({k: v for k, v in state.items() if k.split(".")[1] not in HQ}, tmp_path / "sam.pth")
    decoder = {k.removeprefix("mask_decoder."): v for k, v in state.items() if k.startswith("mask_decoder.")}
    torch.save(decoder, tmp_path / "epoch_11.pth")
    assert main(["weights", "convert", str(tmp_path / "epoch_11.pth")]) == 4
    out = tmp_path / "joined.safetensors"
    files = [str(tmp_path / "epoch_11.pth"), "--sam", str(tmp_path / "sam.pth"), "--output", str(out)]
    assert main(["weights", "convert", *files]) == 0
    joined = load_sam(out).state_dict()
    assert all(torch.equal(joined[k], v) for k, v in state.items())
    capsys.readouterr()
    assert main(["weights", "convert", str(tmp_path / "sam.pth"), "--sam", str(tmp_path / "sam.pth")]) == 2
    assert "not decoder-only" in capsys.readouterr().err
