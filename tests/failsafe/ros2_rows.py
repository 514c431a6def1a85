"""The rows of docs/failsafe.md about ROS 2 drivers: what each rests on, switched off."""
# ruff: noqa: E501 - the code that is switched off stands here as it stands there

from __future__ import annotations

from tests.failsafe.rows import Off, off

PAIRING = "cameras/sources/ros2/pairing.py"
LINK = "cameras/sources/ros2/link.py"

TABLE: dict[str, dict[str, list[Off]]] = {
    "ROS 2 cameras": {
        "messages of two exposures that would make one frame, after one was lost, late or overtaken": [
            off("runtime/cameras/ros2/test_ros2_pairing.py::test_a_pair_is_one_exposure_in_order_and_every_exposure_has_its_number",
                "mixed", (PAIRING, "- heads[oldest].stamp_ns > self._slop_ns:", "- heads[oldest].stamp_ns > 10**18:")),
        ],
        "a message lost between driver and camera program, or every message of an exposure": [
            off("runtime/cameras/ros2/test_ros2.py::test_exposures_are_paired_and_the_lost_ones_counted",
                "[1, 2, 3, 4] == [1, 2, 4, 6]", (PAIRING, "self._number += max(self._unpaired + 1, *(self._steps(topic) for topic in self._topics))", "self._number += 1")),
        ],
        "a stamp twice": [
            off("runtime/cameras/ros2/test_ros2_pairing.py::test_a_stamp_that_comes_twice_ends_it",
                "DID NOT RAISE", (PAIRING, "if stamp in mine.recent_ns:", "if False:")),
        ],
        "the driver was restarted, or its clock set": [
            off("runtime/cameras/ros2/test_ros2_pairing.py::test_stamps_and_counts_that_go_back_end_it[messages0-restarted or its clock was set]",
                "DID NOT RAISE", (PAIRING, "later != (arrived.sequence > last.sequence)", "False")),
        ],
        "two drivers publish one topic": [
            off("runtime/cameras/ros2/test_ros2.py::test_what_makes_pictures_doubtful_ends_it_at_once[another_publisher-two publishers]",
                "DID NOT RAISE", (LINK, "elif others:", "elif False:")),
        ],
        "the driver ends": [
            off("runtime/cameras/ros2/test_ros2.py::test_what_makes_pictures_doubtful_ends_it_at_once[driver_ends-is gone]",
                "DID NOT RAISE", (LINK, "elif self._publishers.pop(token, None) and found.topic in kinds:", "elif False:")),
        ],
        "colour and 3D that are not registered to one frame": [
            off("runtime/cameras/ros2/test_ros2.py::test_what_makes_pictures_doubtful_ends_it_at_once[another_frame-frame_id 'elsewhere']",
                "DID NOT RAISE", ("cameras/sources/ros2/source.py", "if known != head.frame_id:", "if False:")),
        ],
        "a lens that changes": [
            off("runtime/cameras/ros2/test_ros2.py::test_depth_waits_for_its_lens_and_colour_of_twice_the_size_is_binned",
                "DID NOT RAISE", ("cameras/sources/ros2/source.py", "if self._info and constant != self._info:", "if False:")),
        ],
        "a bag is played where parts are announced": [
            off("runtime/cameras/ros2/test_ros2.py::test_a_bag_answers_no_announced_part",
                "CameraError", ("cameras/sources/ros2/source.py", 'if options.bag and triggers != "free_run":', "if False:")),
        ],
    },
}  # fmt: skip
