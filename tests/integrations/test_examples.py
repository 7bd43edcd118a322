"""The examples run: the camera with a window that a test looks at, the ROS 2 node against stand-ins of its messages."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import paths
from golden_masks import HEIGHT, WIDTH, scene
from ui_toys import toy_video


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, paths.ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, shown = iter([ord("s"), 255, ord("r"), ord("q")]), list[np.ndarray]()
    monkeypatch.setattr(cv2, "waitKey", lambda wait: next(keys))
    monkeypatch.setattr(cv2, "selectROI", lambda window, image: (40, 30, 40, 36))
    monkeypatch.setattr(cv2, "imshow", lambda window, image: shown.append(image))
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    video = toy_video(tmp_path / "square.mp4", 6)
    example("camera").main(str(video))
    plain = cv2.VideoCapture(str(video)).read()[1]
    changed = [int((np.abs(picture.astype(int) - plain).max(-1) > 60).sum()) for picture in shown]
    assert len(shown) == 3 and min(changed[:2]) > 500 > changed[2]  # drawn, followed, and forgotten


def test_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    sent: list[Any] = []

    class Node:
        def __init__(self, name: str) -> None: ...

        def declare_parameter(self, name: str, value: object) -> Any:
            return SimpleNamespace(value=value)

        def create_publisher(self, kind: type, topic: str, depth: int) -> Any:
            return SimpleNamespace(publish=sent.append)

        def create_subscription(self, *arguments: object) -> None: ...

        def get_logger(self) -> Any:
            return SimpleNamespace(info=said.append, warning=said.append, error=said.append)

    for name, names in {
        "rclpy": {},
        "rclpy.node": {"Node": Node},
        "rclpy.qos": {"qos_profile_sensor_data": None},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": SimpleNamespace},
        "std_msgs": {},
        "std_msgs.msg": {"Float32MultiArray": SimpleNamespace},
    }.items():
        module = ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
    node = example("ros2_node").SegmentNode()
    padded = np.zeros((HEIGHT, 3 * WIDTH + 8), np.uint8)
    padded[:, : 3 * WIDTH] = scene(0)[..., ::-1].reshape(HEIGHT, -1)
    message = SimpleNamespace(
        header="stamp", height=HEIGHT, width=WIDTH, step=3 * WIDTH + 8, encoding="bgr8", data=padded.tobytes()
    )
    node.segment(message)
    node.add(SimpleNamespace(data=[44, 59, 137, 152]))
    node.add(SimpleNamespace(data=[1, 2]))
    node.segment(message)
    labels = np.frombuffer(sent[1].data, "<u2").reshape(HEIGHT, WIDTH)
    assert sent[1].header == "stamp" and sent[1].encoding == "mono16" and (labels == 1).sum() > 3000
    assert said[0] == "object 1" and "expected" in said[1]
    node.segment(SimpleNamespace(**{**vars(message), "encoding": "mono8"}))
    assert "rgb8 or bgr8" in said[-1] and len(sent) == 2
