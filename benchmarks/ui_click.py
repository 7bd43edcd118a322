"""From a click to its mask, through the browser: ``vidseg ui`` with the embedded model, headless Chromium.

    python benchmarks/ui_click.py VIDEO [--clicks 50]

Prints measured / limit: how long the page took to be painted and to show its first frame; the median, 95th percentile
and maximum of the time from the press of the button to the mask on the screen, as the page's own clock saw it; then the
same for the better mask that follows. Each click makes an object of its own, at places spread over the picture, on a
frame that has been looked at for a moment, as a person does. Needs ``vidseg[ui]``, selenium, chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from browser import Page, browser
from vidseg.video import probe

_WATCH = """
window.seen = [];
const canvas = document.getElementById('canvas');
canvas.addEventListener('pointerdown', () => (window.seen = [performance.now()]), true);
new MutationObserver(() => requestAnimationFrame(() => window.seen.push(performance.now())))
  .observe(canvas, {attributeFilter: ['data-version']});
"""
"""Notes when the button was pressed, and when the frames with new masks were painted after it."""
_THINK_S = 1.0
_LIMIT_FRAME_S, _LIMIT_MASK_S = 2.0, 0.3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--clicks", type=int, default=50)
    given = parser.parse_args()
    info = probe(given.video)
    with tempfile.TemporaryDirectory() as folder, browser(1920, 1080) as page:
        command = [sys.executable, "-m", "vidseg", "ui", str(given.video), "--output", folder, "--no-browser"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().partition(": ")[2].strip()
            _measure(page, url, (info.width, info.height), given.clicks)
        finally:
            server.terminate()
            server.wait(20)


def _measure(page: Page, url: str, size: tuple[int, int], clicks: int) -> None:
    page.driver.get(url)
    page.until("document.getElementById('canvas').dataset.frame === '0'")
    first = page.js("performance.now()") / 1000
    paint = page.js("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
    print(f"first paint {paint:.2f} s / {_LIMIT_FRAME_S} s, first frame {first:.2f} s / {_LIMIT_FRAME_S} s")
    page.driver.execute_script(_WATCH)
    page.press((size[0] * 0.5, size[1] * 0.5), size)  # loads the networks
    _answer(page, 240)
    shown, better, empty = [], [], 0
    places = np.random.default_rng(0).uniform(0.08, 0.92, (4 * clicks, 2)) * size
    for x, y in places:
        page.chord("\ue009", "z")
        page.until("document.getElementById('canvas').dataset.objects === ''")
        time.sleep(_THINK_S)
        page.press((float(x), float(y)), size)
        times = _answer(page, 60)
        if len(times) < 2:
            empty += 1  # nothing is there
            continue
        shown.append(times[1] - times[0])
        better.append(times[-1] - times[0])
        if len(shown) == clicks:
            break
    for what, values, limit in (("mask", shown, f" / {_LIMIT_MASK_S} s"), ("better mask", better, "")):
        middle, high, most = (np.percentile(values, q) / 1000 for q in (50, 95, 100))
        print(f"click to {what}: median {middle:.3f} s, 95th percentile {high:.3f} s{limit}, maximum {most:.3f} s")
    print(f"{len(shown)} clicks with a mask, {empty} where nothing was found")


def _answer(page: Page, seconds: float) -> list[float]:
    """Milliseconds of the press and of the masks painted after it, when the last one is there."""
    end, times, quiet = time.monotonic() + seconds, [0.0], 0.0
    while time.monotonic() < end and quiet < 3.0:
        time.sleep(0.1)
        now = page.js("window.seen")
        waits = not page.js("document.getElementById('busy').hidden")
        quiet = 0.0 if waits or now != times else quiet + 0.1
        times = list(now)
        if len(times) > 2:
            break
    return times


if __name__ == "__main__":
    main()
