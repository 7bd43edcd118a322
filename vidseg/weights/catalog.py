"""The weights vidseg knows by name: what they are, where they come from, their size, checksum and licence.

Sources of the numbers: Git-LFS object ids of the publishers (sha256; for SAM 2.1, of which the publisher names none,
those that several public repositories agree on), published file names (md5 prefix). Where nothing is known the fields
are None, and a fetched file is only as good as the connection.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from vidseg.errors import UsageError, did_you_mean

Family = Literal["sam", "sam2", "xmem", "cutie", "mask2former"]

APACHE = "Apache-2.0"
NON_COMMERCIAL = "CC-BY-NC-4.0"
RESEARCH = "research use"
"""Of the embedded weights: several of the data sets they were trained on allow no other."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One weight file. ``url`` is None for files that are part of vidseg (``embedded``)."""

    name: str
    title: str
    family: Family
    file: str
    licence: str
    paper: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    md5_prefix: str | None = None
    note: str = ""

    @property
    def embedded(self) -> bool:
        """True for the weights that come with vidseg."""
        return self.url is None

    @property
    def non_commercial(self) -> bool:
        """True when the licence forbids commercial use: said before every use."""
        return self.licence == NON_COMMERCIAL


_HQ_SAM = "Segment Anything in High Quality (Ke et al., NeurIPS 2023)"
_SAM = "Segment Anything (Kirillov et al., ICCV 2023)"
_SAM2 = "SAM 2: Segment Anything in Images and Videos (Ravi et al., 2024)"
_XMEM = "XMem (Cheng and Schwing, ECCV 2022)"
_CUTIE = "Putting the Object Back into Video Object Segmentation (Cheng et al., CVPR 2024)"
_M2F = "Mask2Former for Video Instance Segmentation (Cheng et al., 2021)"
_HQ_URL = "https://huggingface.co/lkeab/hq-sam/resolve/main/"
_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
_SAM2_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/"
_XMEM_URL = "https://github.com/hkchengrex/XMem/releases/download/v1.0/"
_CUTIE_URL = "https://github.com/hkchengrex/Cutie/releases/download/v1.0/"
_M2F_URL = "https://dl.fbaipublicfiles.com/maskformer/video_mask2former/"


def _hq(size: str, title: str, file_size: int, sha256: str) -> Entry:
    file = f"sam_hq_vit_{size}.pth"
    return Entry(f"sam-hq-vit-{size}", title, "sam", file, APACHE, _HQ_SAM, _HQ_URL + file, file_size, sha256)


def _sam(size: str, file: str, file_size: int, sha256: str) -> Entry:
    title = f"Segment Anything, ViT-{size.upper()}"
    return Entry(f"sam-vit-{size}", title, "sam", file, APACHE, _SAM, _SAM_URL + file, file_size, sha256)


def _sam2(version: str, size: str, file_size: int | None = None, sha256: str | None = None) -> Entry:
    file = f"sam{version}_hiera_{size.replace('-', '_')}.pt"
    url = f"{_SAM2_URL}{'092824' if version == '2.1' else '072824'}/{file}"
    note = "" if sha256 else "no checksum is published"
    title = f"SAM {'2.0' if version == '2' else version}, Hiera {size}"
    return Entry(f"sam{version}-hiera-{size}", title, "sam2", file, APACHE, _SAM2, url, file_size, sha256, note=note)


def _m2f(year: int, name: str, folder: str, md5_prefix: str) -> Entry:
    return Entry(
        name=f"mask2former-ytvis{year}-{name}",
        title=f"{name}, YouTube-VIS {year}",
        family="mask2former",
        file=f"mask2former_ytvis{year}_{name}.pkl",
        licence=NON_COMMERCIAL,
        paper=_M2F,
        url=f"{_M2F_URL}ytvis_{year}/video_maskformer2_{folder}_bs16_8ep/model_final_{md5_prefix}.pkl",
        md5_prefix=md5_prefix,
    )


ENTRIES: tuple[Entry, ...] = (
    Entry(
        "compact",
        "Compact HQ-SAM for CPUs",
        "sam",
        "compact.safetensors",
        RESEARCH,
        _HQ_SAM,
        note="the default model; data and their terms: docs/model-card.md",
    ),
    Entry(
        "compact-xmem",
        "Compact XMem for CPUs",
        "xmem",
        "compact-xmem.safetensors",
        RESEARCH,
        _XMEM,
        note="the default tracker; data and their terms: docs/model-card-xmem.md",
    ),
    _hq("b", "HQ-SAM, ViT-B", 379335069, "14a9d662cd6f5a9c2dba6d40ab0058d88d287e4a18fd6fdc6ad5fb1a3fdeaa57"),
    _hq("l", "HQ-SAM, ViT-L", 1254865805, "e1a6c385d62bf005ded91a54d5ec55c985cfc4103ef89c08d90f39f04934c343"),
    _hq("h", "HQ-SAM, ViT-H", 2570940653, "a7ac14a085326d9fa6199c8c698c4f0e7280afdbb974d2c4660ec60877b45e35"),
    _hq("tiny", "Light HQ-SAM, TinyViT", 42526881, "0f32c075ccdd870ae54db2f7630e7a0878ede5a2b06d05d6fe02c65a82fb7196"),
    _sam(
        "b",
        "sam_vit_b_01ec64.pth",
        375042383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    _sam(
        "l",
        "sam_vit_l_0b3195.pth",
        1249524607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    _sam(
        "h",
        "sam_vit_h_4b8939.pth",
        2564550879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    Entry(
        "mobile-sam",
        "MobileSAM, TinyViT",
        "sam",
        "mobile_sam.pt",
        APACHE,
        "Faster Segment Anything (Zhang et al., 2023)",
        "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
        40728226,
        "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
    ),
    _sam2("2.1", "tiny", 156008466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
    _sam2("2.1", "small", 184416285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
    _sam2("2.1", "base-plus", 323606802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
    _sam2("2.1", "large", 898083611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
    _sam2("2", "tiny"),
    _sam2("2", "small"),
    _sam2("2", "base-plus"),
    _sam2("2", "large"),
    Entry(
        "sam2.1-hq-hiera-large",
        "HQ-SAM 2.1, Hiera large",
        "sam2",
        "sam2.1_hq_hiera_large.pt",
        APACHE,
        _HQ_SAM,
        _HQ_URL + "sam2.1_hq_hiera_large.pt",
        sha256="03b8be4b4f282c3d7365715a033918d9ac67cbc597660ccc274448aa1c8cdb05",
    ),
    Entry("xmem", "XMem", "xmem", "XMem.pth", "MIT", _XMEM, _XMEM_URL + "XMem.pth", note="no checksum is published"),
    Entry(
        "xmem-s012",
        "XMem with BL30K pre-training",
        "xmem",
        "XMem-s012.pth",
        "MIT",
        _XMEM,
        _XMEM_URL + "XMem-s012.pth",
        note="no checksum is published",
    ),
    Entry(
        "cutie-base-mega",
        "Cutie, base",
        "cutie",
        "cutie-base-mega.pth",
        "MIT",
        _CUTIE,
        _CUTIE_URL + "cutie-base-mega.pth",
        md5_prefix="a6071de6136982e396851903ab4c083a",
        note="the licence of the code; none is stated for the weights",
    ),
    Entry(
        "cutie-small-mega",
        "Cutie, small",
        "cutie",
        "cutie-small-mega.pth",
        "MIT",
        _CUTIE,
        _CUTIE_URL + "cutie-small-mega.pth",
        note="no checksum is published; the licence of the code",
    ),
    _m2f(2019, "r50", "R50", "34112b"),
    _m2f(2019, "r101", "R101", "a34dca"),
    _m2f(2019, "swin-t", "swin_tiny", "26fffe"),
    _m2f(2019, "swin-s", "swin_small", "4a5174"),
    _m2f(2019, "swin-b", "swin_base_IN21k_384", "221a8a"),
    _m2f(2019, "swin-l", "swin_large_IN21k_384", "c5c739"),
    _m2f(2021, "r50", "R50", "b8aae2"),
    _m2f(2021, "r101", "R101", "6efd7a"),
    _m2f(2021, "swin-t", "swin_tiny", "965185"),
    _m2f(2021, "swin-s", "swin_small", "0dec91"),
    _m2f(2021, "swin-b", "swin_base_IN21k_384", "a9b925"),
    _m2f(2021, "swin-l", "swin_large_IN21k_384", "4da256"),
)

CATALOG: dict[str, Entry] = {entry.name: entry for entry in ENTRIES}


def find_entry(name: str) -> Entry:
    """The entry called ``name``; a UsageError with the closest name when there is none."""
    if name not in CATALOG:
        raise UsageError(f"unknown weights {name!r}{did_you_mean(name, CATALOG)}; see `vidseg weights list`")
    return CATALOG[name]


def split_model(model: str) -> tuple[str, Path | None]:
    """What ``--model`` means: ("NAME", None), ("NAME", FILE) for NAME=FILE, or ("", FILE).

    A known name wins over a file of the same name; write ./NAME for the file. A text with a suffix (that does not begin
    with a digit, as in "sam2.1-...") is a file, whether it exists or not.
    """
    if model in CATALOG:
        return model, None
    name, sign, file = model.partition("=")
    if sign and name in CATALOG:
        return name, Path(file)
    path = Path(model)
    if path.suffix[1:2].isalpha() or path.exists() or "/" in model or "\\" in model:
        return "", path
    return model, None


def split_added(model: str) -> tuple[str, Path | None]:
    """BASE+FILE as (BASE, FILE); anything else as (``model``, None). A file whose own name has a "+" is a file."""
    if "+" not in model or Path(model).exists():
        return model, None
    places = [i for i, sign in enumerate(model) if sign == "+"]
    place = next((i for i in places if Path(model[i + 1 :]).is_file()), places[-1])
    return model[:place], Path(model[place + 1 :])


def weights_folder() -> Path:
    """Where fetched files are kept: ``$VIDSEG_WEIGHTS``, else ``vidseg/weights`` in the user's cache folder."""
    own = os.environ.get("VIDSEG_WEIGHTS")
    if own:
        return Path(own)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "vidseg" / "weights"


def find_local(name: str) -> Path | None:
    """The file of ``name`` if it is on this machine (embedded or fetched earlier) in its known size."""
    entry = find_entry(name)
    if entry.embedded:
        path = Path(str(resources.files("vidseg"))) / "weights" / "data" / entry.file
    else:
        path = weights_folder() / entry.file
    if not path.is_file() or (entry.size is not None and path.stat().st_size != entry.size):
        return None
    return path
