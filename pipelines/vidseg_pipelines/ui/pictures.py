"""Frames as the page shows them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from vidseg.errors import InputError
from vidseg_pipelines.ui.page_video import PageVideo

_LONGEST = 2560  # pixels of the longer side that are sent
_QUALITY = 90


class Pictures:
    """JPEGs of the frames of one video, decoded in a thread of its own so that looking never waits for computing."""

    def __init__(self, video: PageVideo) -> None:
        """``video`` is read by nobody else, and closed at the end."""
        self._video = video
        self._thread = ThreadPoolExecutor(1, "vidseg-ui-pictures")

    async def jpeg(self, frame: int) -> bytes:
        """One frame.

        Raises:
            FramesRenumbered: the list of frames was found wrong.
            InputError: there is no such frame, or it cannot be decoded.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._jpeg, frame)

    async def close(self) -> None:
        """Close the video when the thread is free."""
        self._thread.submit(self._video.close)
        self._thread.shutdown(wait=False)

    def _jpeg(self, frame: int) -> bytes:
        rgb = self._video.read(frame).rgb
        scale = _LONGEST / max(rgb.shape[:2])
        if scale < 1:
            rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)
        done, data = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if not done:
            raise InputError(f"frame {frame} cannot be shown")
        return data.tobytes()
