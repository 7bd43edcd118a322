"""Headless Chromium on a page of ``vidseg ui`` that runs in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from ui_toys import serve_toys

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


class Server:
    """A page of ``ui_toys.py`` in a process of its own, forked from one that imported all of it once."""

    def __init__(self, path: Path, output: Path, seconds: float = 0.0) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(["ui_toys"])  # which it finds by PYTHONPATH: conftest.py sets that
        told, tell = context.Pipe(duplex=False)
        self.process = context.Process(target=serve_toys, args=(path, output, seconds, tell.send))
        self.process.start()
        tell.close()
        self.url: str = told.recv()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; gives the exit code."""
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)
        self.process.join(120)
        assert self.process.exitcode is not None, "it goes on after two minutes"
        return self.process.exitcode


@contextmanager
def served(path: Path, output: Path, seconds: float = 0.0) -> Iterator[Server]:
    server = Server(path, output, seconds)
    try:
        yield server
    finally:
        server.end(signal.SIGKILL)


class Page:
    """A browser window."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def js(self, expression: str) -> Any:
        return self.driver.execute_script(f"return {expression}")

    def until(self, expression: str, seconds: float = 60.0) -> Any:
        """Wait for something to be true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.js(expression):
                return found
            time.sleep(0.05)
        toasts = self.js("document.getElementById('toasts').innerText")
        raise AssertionError(f"never true: {expression}; the page says {toasts!r}; {self.driver.get_log('browser')}")

    def shows(self, frame: int, objects: str) -> None:
        """Wait until a frame and the masks of these objects (ids with commas) are drawn."""
        data = "document.getElementById('canvas').dataset"
        self.until(f"{data}.frame === '{frame}' && {data}.objects === '{objects}'")

    def keys(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def chord(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        chain = ActionChains(self.driver)
        for key in keys:
            chain.key_down(key)
        for key in reversed(keys):
            chain.key_up(key)
        chain.perform()

    def drag(self, start: tuple[float, float], end: tuple[float, float], size: tuple[int, int]) -> None:
        """Press at one place of the video, release at another; ``size`` is (width, height) of the video."""
        from selenium.webdriver import ActionChains

        chain = ActionChains(self.driver).move_to_element_with_offset(*self._offset(start, size)).click_and_hold()
        chain.move_to_element_with_offset(*self._offset(end, size)).release().perform()

    def press(self, place: tuple[float, float], size: tuple[int, int], *, right: bool = False) -> None:
        """Click at a place of the video."""
        from selenium.webdriver import ActionChains

        chain = ActionChains(self.driver).move_to_element_with_offset(*self._offset(place, size))
        (chain.context_click() if right else chain.click()).perform()

    def color_at(self, place: tuple[float, float], size: tuple[int, int]) -> list[int]:
        """RGB of the picture as it is shown, near a place of the video."""
        canvas, x, y = self._offset(place, size)
        return list(
            self.driver.execute_script(
                "const c = arguments[0], k = c.width / c.clientWidth;"
                "return [...c.getContext('2d').getImageData((c.clientWidth / 2 + arguments[1]) * k,"
                " (c.clientHeight / 2 + arguments[2]) * k, 1, 1).data].slice(0, 3)",
                *(canvas, x, y),
            )
        )

    def color_until(
        self, place: tuple[float, float], size: tuple[int, int], is_it: Callable[[int, int, int], bool]
    ) -> None:
        """Wait for a color (red, green, blue) of the picture near a place of the video."""
        end = time.monotonic() + 60
        while not is_it(*(color := self.color_at(place, size))):
            assert time.monotonic() < end, f"{place} stays {color}"
            time.sleep(0.05)

    def _offset(self, place: tuple[float, float], size: tuple[int, int]) -> tuple[Any, int, int]:
        """Place of the video from the middle of the canvas, in which the whole picture is fitted."""
        from selenium.webdriver.common.by import By

        canvas = self.driver.find_element(By.ID, "canvas")
        wide, high = canvas.size["width"], canvas.size["height"]
        scale = min((wide - 32) / size[0], (high - 32) / size[1])
        return canvas, round((place[0] - size[0] / 2) * scale), round((place[1] - size[1] / 2) * scale)


@contextmanager
def browser(width: int = 1280, height: int = 800) -> Iterator[Page]:
    """A window of that size; skips where there is no Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={width},{height}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER, env={**os.environ}))
    try:
        yield Page(driver)
    finally:
        driver.quit()
