"""The rows of docs/failsafe.md about cameras with GenTL: what each rests on, switched off."""
# ruff: noqa: E501 - the code that is switched off stands here as it stands there

from __future__ import annotations

from tests.failsafe.rows import Off, off

SOURCE = "cameras/sources/genicam/source.py"
SDK = "cameras/sources/genicam/sdk.py"
NODES = "cameras/sources/genicam/nodes.py"
PAYLOAD = "cameras/sources/genicam/payload.py"
COUNT = "cameras/sources/genicam/count.py"
COORDINATES = "cameras/pictures/coordinates.py"

TABLE: dict[str, dict[str, list[Off]]] = {
    "GenTL cameras": {
        "the driver writes the next exposure over a buffer whose picture is still to be sent": [
            off("runtime/cameras/genicam/test_genicam_producer.py::test_a_frame_stays_as_it_is_while_the_camera_goes_on",
                "assert False", (SDK, "data = raw[start : start + max(0, nbytes)].copy()", "data = raw[start : start + max(0, nbytes)]")),
        ],
        "a buffer that is incomplete, or lacks colour, a coordinate or bytes": [
            off("runtime/cameras/genicam/test_genicam_pure.py::test_an_exposure_that_lacks_something_is_lost_and_never_filled",
                "cannot reshape", (PAYLOAD, "    if part.data.size < needed:", "    if False:")),
        ],
        "exposures lost on the way, also where a 16-bit count wraps": [
            off("runtime/cameras/genicam/test_genicam_pure.py::test_block_ids_of_16_bits_are_unwrapped",
                "== 65536", (COUNT, "self.last = unwrapped(self.last, frame_id) if self._wraps else frame_id", "self.last = frame_id")),
        ],
        "an exposure from before the trigger, or of a trigger that was given up": [
            off("runtime/cameras/genicam/test_genicam_source.py::test_five_of_five_triggers_are_answered_by_an_exposure_after_them",
                "assert (", (SOURCE, "for surplus in range(self._options.buffers + 1):\n            delivery = self._camera.fetch(1, self._scan3d)\n            if delivery is None:", "for surplus in range(self._options.buffers + 1):\n            delivery = None\n            if delivery is None:"), (COUNT, "return stamp_us < self._device_us", "return False")),
            off("runtime/cameras/genicam/test_genicam_source.py::test_the_exposure_of_a_trigger_that_was_not_answered_in_time_never_answers_the_next",
                "assert (", (SOURCE, "if self._came and number <= last:", "if False:")),
        ],
        "a camera exposes more than once for a trigger, and the next one is given before the picture came": [
            off("runtime/cameras/genicam/test_genicam_pure.py::test_an_exposure_from_before_its_trigger_is_told_by_time[read]",
                "the second exposure", (COUNT, "return stamp_us < self._device_us", "return False")),
            off("runtime/cameras/genicam/test_genicam_pure.py::test_an_exposure_from_before_its_trigger_is_told_by_time[none]",
                "the second exposure", (COUNT, "            return True\n", "            return False\n")),
            off("runtime/cameras/genicam/test_genicam_source.py::test_an_exposure_too_many_of_a_camera_that_does_not_tell_its_time_ends_it[False]",
                "DID NOT RAISE", (SOURCE, "if surplus and self._came and not self._tells_time:", "if False:")),
        ],
        "exposures without a time, with `software` triggers": [
            off("runtime/cameras/genicam/test_genicam_source.py::test_exposures_without_times_answer_no_trigger",
                "DID NOT RAISE", (SOURCE, "if not delivery.time_us:", "if False:"),
                (SOURCE, "or delivery.time_us <= time_us:", "or False:")),
        ],
        "a camera that exposes although it was set to be triggered": [
            off("runtime/cameras/genicam/test_genicam_source.py::test_a_camera_that_does_not_obey_its_trigger_is_lost",
                "DID NOT RAISE", (SOURCE, 'raise CameraLostError(f"{self.sensor} exposes without a trigger; check its trigger settings")', "pass")),
        ],
        "another camera than the one that is named": [
            off("runtime/cameras/genicam/test_genicam_source.py::test_a_camera_that_is_refused_is_closed",
                "DID NOT RAISE", (SOURCE, "if options.serial and options.serial not in (serial, camera.seen.id):", "if False:")),
            off("runtime/cameras/genicam/test_genicam_pure.py::test_a_camera_is_chosen_by_name_and_never_by_chance",
                "DID NOT RAISE", (SDK, "    if len(found) > 1:", "    if False:")),
        ],
        "a setting that the camera does not take, or that a later one changes": [
            off("runtime/cameras/genicam/test_genicam_pure.py::test_a_value_that_reads_back_differently_is_named",
                "DID NOT RAISE", (NODES, "if got is None or not same(wanted, got):", "if False:")),
        ],
        "another unit, format, size or component while the camera is open": [
            off("runtime/cameras/genicam/test_genicam_source.py::test_a_camera_that_changes_while_open_is_lost",
                "DID NOT RAISE", (SOURCE, "if self._described and described != self._described:", "if False:")),
        ],
        "missing points that an offset would make measured ones": [
            off("runtime/cameras/genicam/test_genicam_pure.py::test_scale_offset_and_missing_points_are_each_axis_own",
                "not a point at the offset", (COORDINATES, "if axes.invalid == (None, None, None):", "if False:")),
        ],
        "a clock that is no longer synchronised by PTP, or whose camera has become the master": [
            off("runtime/cameras/genicam/test_genicam_source.py::test_ptp_is_said_only_while_the_camera_says_it",
                "DID NOT RAISE", (SOURCE, "if status != self._ptp_status:", "if False:")),
        ],
        "its producer hangs while the camera is opened or closed": [
            off("runtime/cameras/genicam/test_genicam_producer.py::test_a_producer_that_hangs_while_the_camera_is_closed_ends_the_process",
                "TimeoutExpired", (SDK, "faulthandler.dump_traceback_later(STUCK_S, exit=True, file=output)", "pass")),
        ],
        "the camera is unplugged, or its producer fails": [
            off("runtime/cameras/genicam/test_genicam_producer.py::test_a_time_out_is_none_and_an_error_of_the_producer_is_a_lost_camera",
                "IoException", (SDK, "        except _errors() as error:", "        except KeyError as error:")),
        ],
    },
}
