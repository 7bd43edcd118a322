"""A ROS 2 node: images in, label maps out; objects are found, or given as boxes.

Subscribes to ``image`` (sensor_msgs/Image, rgb8 or bgr8) and ``box`` (std_msgs/Float32MultiArray: x1, y1, x2, y2),
publishes ``labels`` (sensor_msgs/Image, mono16: the id of every pixel, 0 = background).

    ros2 run ... or: python3 ros2_node.py --ros-args -r image:=/camera/image_raw -p max_objects:=3

Frames that come while one is computed are dropped: the newest is worth more than a complete sequence.
"""

from __future__ import annotations

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Float32MultiArray

from vidseg import Session, VidsegError


class SegmentNode(Node):
    """One session on one camera."""

    def __init__(self) -> None:
        super().__init__("vidseg")
        count = self.declare_parameter("max_objects", 0).value
        self.session = Session(max_objects=count or None)
        self.labels = self.create_publisher(Image, "labels", 1)
        self.create_subscription(Image, "image", self.segment, qos_profile_sensor_data)
        self.create_subscription(Float32MultiArray, "box", self.add, 10)

    def segment(self, message: Image) -> None:
        """Publish the label map of an image."""
        if message.encoding not in ("rgb8", "bgr8"):
            self.get_logger().error(f"encoding {message.encoding}: rgb8 or bgr8 expected")
            return
        rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        image = rows[:, : 3 * message.width].reshape(message.height, message.width, 3)
        if message.encoding == "bgr8":
            image = image[..., ::-1]
        try:
            masks = self.session.step(np.ascontiguousarray(image))
        except VidsegError as error:  # the camera has changed its size
            self.get_logger().warning(str(error))
            self.session.reset()
            return
        answer = Image()
        answer.header = message.header
        answer.height, answer.width, answer.encoding = message.height, message.width, "mono16"
        answer.step, answer.is_bigendian = 2 * message.width, 0
        answer.data = masks.label_map.astype("<u2").tobytes()
        self.labels.publish(answer)

    def add(self, message: Float32MultiArray) -> None:
        """A new object, on the image just seen."""
        try:
            number = self.session.add(box=tuple(message.data))
            self.get_logger().info(f"object {number}")
        except VidsegError as error:
            self.get_logger().warning(str(error))


def main() -> None:
    """Spin until the node is asked to end."""
    rclpy.init()
    node = SegmentNode()
    try:
        rclpy.spin(node)
    finally:
        node.session.close()
        node.destroy_node()


if __name__ == "__main__":
    main()
