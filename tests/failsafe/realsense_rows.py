"""The rows of docs/failsafe.md about RealSense cameras: what each rests on, switched off."""
# ruff: noqa: E501 - the code that is switched off stands here as it stands there

from __future__ import annotations

from tests.failsafe.rows import Off, off

SOURCE = "runtime/cameras/realsense/test_realsense_source.py::"
PAIRING = "runtime/cameras/realsense/test_realsense_pairing.py::"
DEVICE = "runtime/cameras/realsense/test_realsense_device.py::"

TABLE: dict[str, dict[str, list[Off]]] = {
    "RealSense cameras": {
        "one of the two pictures of an exposure is lost": [
            off(PAIRING + "test_both_halves_lost_in_turn", "(2, 3)",
                ("cameras/sources/realsense/pairing.py", "if abs(apart_us) < self._apart_us:", "if True:")),
        ],
        "the camera was restarted while it was open": [
            off(PAIRING + "test_counts_and_stamps_only_grow", "DID NOT RAISE",
                ("cameras/sources/realsense/pairing.py", "if half.number < last.number or half.stamp_us <= last.stamp_us:", "if False:")),
        ],
        "an exposure from before its trigger": [
            off(SOURCE + "test_every_trigger_is_answered_by_a_later_exposure", "assert 1",
                ("cameras/sources/realsense/source.py", "if self._after_us is None or begun_us(pair, self._period_us) >= self._after_us:", "if True:")),
        ],
        "its stamps are of another clock than before": [
            off(SOURCE + "test_a_clock_that_changes_ends_it", "DID NOT RAISE",
                ("cameras/sources/realsense/source.py", "if wanted is None or domain == wanted:", "if True:")),
        ],
        "another camera than the one that was set": [
            off(DEVICE + "test_a_camera_is_chosen_by_its_serial_number", "0003",
                ("cameras/sources/realsense/device.py", "if serial and serial not in found:", "if False:")),
        ],
        "a setting did not take": [
            off(DEVICE + "test_a_setting_that_did_not_take_is_named", "DID NOT RAISE",
                ("cameras/sources/realsense/device.py", "if np.float32(got) != np.float32(wanted):", "if False:")),
        ],
    },
}
