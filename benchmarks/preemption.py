"""How long `vidseg batch` takes to stop after SIGTERM, and what it goes on from; outputs here and in object storage.

    python benchmarks/preemption.py VIDEO --box X0,Y0,X1,Y1 [--frames :24] [--after 8]

The command is sent SIGTERM when so many frames are done. Printed are the seconds until its worker has saved the state
and ended, the size of that state, the frames it begins with, and whether the results, when the command has been
repeated, are those of one undisturbed `vidseg run`. The object storage is moto's server in this process. Of the
undisturbed run, whose output is there too, the bytes per mask in its journal are printed, and its requests.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import fsspec
import psutil
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from object_storage import bucket


def vidseg(*words: str) -> subprocess.Popen[bytes]:
    """A command that says nothing."""
    return subprocess.Popen([sys.executable, "-m", "vidseg", *words], stdout=subprocess.DEVNULL)


def lines(journals: list[Path]) -> int:
    """Frames that are done."""
    return sum(path.read_bytes().count(b"\n") for path in journals if path.is_file())


def line(place: str, words: list[str], after: int, whole: bytes, cache: Path) -> str:
    """Stop and repeat the command with this output."""
    remote = "://" in place
    command = vidseg("batch", *words, "--output", place, "--workers", "1")
    name = Path(words[0]).stem
    while lines([*cache.glob(f"work/*/{name}/masks.jsonl"), Path(place) / name / "masks.jsonl"]) < after:
        time.sleep(0.05)
    worker = next(p for p in psutil.Process(command.pid).children() if "spawn_main" in " ".join(p.cmdline()))
    begun = time.monotonic()
    os.kill(command.pid, signal.SIGTERM)
    worker.wait()
    ended = time.monotonic() - begun
    command.wait()
    files = fsspec.filesystem(place.partition(":")[0] if remote else "file", use_listings_cache=False)
    root = f"{place}/{name}"
    with tempfile.TemporaryDirectory() as folder:
        state = f"{root}/snapshot.safetensors"
        if remote:
            state = f"{root}/.resume/{json.loads(files.cat_file(f'{root}/.resume/index.json'))['snapshot']}"
        files.get_file(state, f"{folder}/state")
        size = Path(folder, "state").stat().st_size
        with safe_open(f"{folder}/state", framework="pt") as file:
            first = file.metadata()["next_frame"]
    vidseg("batch", *words, "--output", place, "--workers", "1").wait()
    same = files.cat_file(f"{root}/masks.jsonl") == whole
    return (
        f"{place if remote else 'a folder'}: {ended:.1f} s, state of {size / 1e6:.1f} MB before frame {first}, results"
        f" {'the same' if same else 'DIFFERENT'}"
    )


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--box", required=True)
    parser.add_argument("--frames", default=":24")
    parser.add_argument("--after", type=int, default=8)
    options = parser.parse_args()
    words = [
        options.video,
        "--box",
        options.box,
        "--frames",
        options.frames,
        "--save",
        "none",
        "--snapshot-every",
        "1000",
    ]
    with tempfile.TemporaryDirectory() as name, bucket() as server:
        cache = Path(name) / "cache"
        os.environ["VIDSEG_CACHE"] = str(cache)
        begun = time.monotonic()
        vidseg("run", *words, "--output", "s3://bucket/whole").wait()
        took, requests = time.monotonic() - begun, dict(Counter(method for method, _ in server.requests))
        whole = server.get("whole/masks.jsonl")
        masks = sum(len(json.loads(text)["objects"]) for text in whole.splitlines())
        print(f"{masks} masks of {len(whole) / masks:.0f} bytes; {took:.0f} s, requests {requests}", flush=True)
        for place in (f"{name}/out", "s3://bucket/out"):
            print(line(place, words, options.after, whole, cache), flush=True)


if __name__ == "__main__":
    main()
