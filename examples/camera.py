"""A session on a camera: press s and drag a box around an object, r to begin anew, q to end.

    python examples/camera.py [0 | video.mp4]

Needs OpenCV with windows (opencv-python instead of opencv-python-headless).
"""

from __future__ import annotations

import sys

import cv2

from vidseg import Session

WINDOW = "vidseg"


def main(source: str = "0") -> None:
    """Segment until the camera ends or q is pressed."""
    camera = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not camera.isOpened():
        sys.exit(f"{source}: no such camera or video")
    with Session(bgr=True) as session:
        while True:
            there, image = camera.read()
            if not there:
                break
            masks = session.step(image)
            key = cv2.waitKey(1) & 0xFF
            if key == ord("q"):
                break
            if key == ord("r"):
                session.reset()
                masks = session.step(image)
            if key == ord("s"):
                x, y, width, height = cv2.selectROI(WINDOW, image)
                if width and height:
                    session.add(box=(x, y, x + width, y + height))
                    masks = session.masks
            cv2.imshow(WINDOW, masks.draw(image[..., ::-1])[..., ::-1])
    camera.release()
    cv2.destroyAllWindows()


if __name__ == "__main__":
    main(*sys.argv[1:])
