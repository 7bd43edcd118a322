"""Weight files that lie: refused before they take memory, run code, or pass for other weights."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vidseg.errors import WeightsError
from vidseg.loading import load_sam
from vidseg.weights.catalog import CATALOG
from vidseg.weights.fetch import fetch, locate
from vidseg.weights.read import read_weights

CONTENT = b"content of the official file"


class TakesMemory:
    def __reduce__(self) -> tuple[object, tuple[int]]:
        return bytearray, (1 << 50,)  # would fail with MemoryError


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_that_take_memory_are_refused(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "big.pth"
    torch.save({"a": torch.zeros(2)}, path)
    content = io.BytesIO()
    pickle.dump({"a": TakesMemory()}, content, protocol=2)
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("big/data.pkl", content.getvalue())
            archive.writestr("big/version", "3\n")
    else:
        path.write_bytes(content.getvalue())
    with pytest.raises(WeightsError, match=r"big.pth refused: .* take memory when loaded \(__builtin__\.bytearray\)"):
        read_weights(path)


def test_an_archive_behind_a_pickle_hides_nothing(tmp_path: Path) -> None:
    """PyTorch goes by the first bytes; who looks at the end of the file sees a harmless archive."""
    path = tmp_path / "both.pth"
    torch.save({"a": torch.zeros(2)}, path)
    path.write_bytes(pickle.dumps({"a": TakesMemory()}, protocol=2) + path.read_bytes())
    assert zipfile.is_zipfile(path)
    with pytest.raises(WeightsError, match=r"both.pth .*(refused|damaged)"):
        read_weights(path)


def test_a_compressed_checkpoint_is_refused(tmp_path: Path) -> None:
    whole, bomb = tmp_path / "whole.pth", tmp_path / "bomb.pth"
    torch.save({"a": torch.zeros(1 << 20)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert bomb.stat().st_size < 20_000
    with pytest.raises(WeightsError, match=r"bomb.pth refused: it would unpack to more than its size"):
        read_weights(bomb)


@pytest.mark.parametrize("tensor", [torch.zeros(1).expand(10**6, 10**6), torch.eye(3).to_sparse()])
def test_tensors_larger_than_the_file_are_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save({"fine": torch.zeros(3), "wide": tensor}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w.pth refused: .*(wide|sparse)"):
        read_weights(tmp_path / "w.pth")


def archive(path: Path, kind: str) -> Path:
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("../../evil.pth", b"x" * 99)
    elif kind in ("w", "w:gz", "w:bz2", "w:xz"):
        with tarfile.open(path, kind) as file:  # type: ignore[call-overload]
            member = tarfile.TarInfo("../../evil.pth")
            member.size = 99
            file.addfile(member, io.BytesIO(b"x" * 99))
    else:
        path.write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(99))
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("zip", "a zip archive without PyTorch weights: unpack it"),
        ("w", "a tar archive: unpack it"),
        ("w:gz", "a gzip archive"),
        ("w:bz2", "a bzip2 archive"),
        ("w:xz", "a xz archive"),
        ("7z", "a 7z archive"),
    ],
)
def test_archives_are_named_and_not_unpacked(tmp_path: Path, kind: str, said: str) -> None:
    path = archive(tmp_path / "w.pth", kind)
    with pytest.raises(WeightsError, match=said):
        load_sam(path)
    assert [file.name for file in tmp_path.iterdir()] == ["w.pth"]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of "xmem", which has a checksum here."""
    monkeypatch.setenv("VIDSEG_WEIGHTS", str(tmp_path / "kept"))
    digest = hashlib.sha256(CONTENT).hexdigest()
    monkeypatch.setitem(CATALOG, "xmem", replace(CATALOG["xmem"], size=len(CONTENT), sha256=digest))
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept" / "XMem.pth"


@pytest.mark.parametrize("offline", [True, False])
def test_another_file_of_the_same_size_is_not_loaded(kept: Path, offline: bool) -> None:
    kept.write_bytes(CONTENT)
    assert locate("xmem", offline=offline) == kept
    kept.write_bytes(CONTENT[::-1])
    with pytest.raises(WeightsError, match=r"XMem.pth: sha256 \w+ instead of \w+: run `vidseg weights fetch xmem`"):
        locate("xmem", offline=offline)


def test_a_short_file_is_said_to_be_damaged(kept: Path) -> None:
    kept.write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=r"weights 'xmem' are damaged \(.*XMem.pth: 27 bytes instead of 28\)"):
        locate("xmem", offline=True)


def test_what_is_here_is_only_fetched_again_when_it_is_wrong(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.write_bytes(CONTENT)
    assert fetch(CATALOG["xmem"], kept.parent) == kept
    kept.write_bytes(CONTENT[::-1])
    monkeypatch.setattr("vidseg.weights.fetch._download", lambda entry, part, *how: part.write_bytes(CONTENT))
    assert fetch(CATALOG["xmem"], kept.parent).read_bytes() == CONTENT


@pytest.mark.parametrize("suffix", ["", ".part", ".lock"])
def test_links_in_the_folder_of_weights_are_refused(kept: Path, tmp_path: Path, suffix: str) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_bytes(CONTENT)
    kept.with_name(kept.name + suffix).symlink_to(mine)
    with pytest.raises(WeightsError, match=r"link"):
        fetch(CATALOG["xmem"], kept.parent)
    if not suffix:
        with pytest.raises(WeightsError, match=r"XMem.pth is a link: refused"):
            locate("xmem", offline=True)
    assert mine.read_bytes() == CONTENT
