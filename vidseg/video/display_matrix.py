"""The display matrix of MP4/MOV (ISO/IEC 14496-12, 6.2.2) as quarter turns and mirrors."""

from __future__ import annotations

import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame

from vidseg.video.orientation import Orientation


def display_orientation(frame: VideoFrame) -> Orientation:
    """Orientation that a decoded frame asks for; a turn between the quarter turns is taken to the nearest one.

    The matrix holds x' = a·x + c·y, y' = b·x + d·y in the order a b u c d v x y w, 32-bit fixed point.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(data, SideData):
        return Orientation()
    a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(data), np.int32)[:5])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transpose=True, flip_x=c < 0, flip_y=b < 0)
    return Orientation(flip_x=a < 0, flip_y=d < 0)
