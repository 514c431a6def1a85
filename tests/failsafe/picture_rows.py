"""The rows of docs/failsafe.md about what a camera's data become: what each rests on, switched off."""

from __future__ import annotations

from tests.failsafe.rows import Off, off

PICTURES = "cameras/pictures/"
TESTS = "runtime/cameras/"

TABLE: dict[str, dict[str, list[Off]]] = {
    "A camera's pictures": {
        "something bright next to a part makes its picture darker": [
            off(TESTS + "pictures/test_pixels.py::test_a_part_does_not_depend_on_its_neighbours", "assert False",
                (PICTURES + "pixels.py", "white = _white(form, name, white_level)", "white = int(np.max(buffer))")),
        ],
        "an SDK writes its next depth picture over one that is still to be sent": [
            off(TESTS + "pictures/test_pixels.py::test_depth_is_stored_as_it_came", "assert not True",
                (PICTURES + "coordinates.py", 'np.array(picture, order="C").v', "np.ascontiguousarray(picture).v")),
        ],
        "a camera's number for a missing point is read as a point": [
            off(TESTS + "pictures/test_pixels.py::test_an_invalid_number_is_compared_as_stored", "assert not np.True_",
                (PICTURES + "coordinates.py", "missing |= stored[..., axis] == same", "pass")),
        ],
        "colour of another view is stretched over the 3D data": [
            off(TESTS + "pictures/test_registration.py::test_another_view_is_refused", "DID NOT RAISE",
                (PICTURES + "registration.py", "if abs(width * rows - columns * height) >", "if False and 0 >")),
        ],
        "a point gets the colour of what hides it from the colour camera": [
            off(TESTS + "pictures/test_registration.py::test_what_the_colour_camera_cannot_see_is_black", "assert",
                (PICTURES + "registration.py", "inside[inside] &= ~_hidden(", "inside[inside] | ~_hidden(")),
        ],
        "a lens whose distortion has no inverse in the picture, so that its points are made up": [
            off("runtime/vision/test_preprocess.py::test_intrinsics_that_cannot_be_used_are_refused",
                "is <Reason.REFUSED_DATA",
                ("vision/units.py", "if not left <= UNDISTORT_LEFT:", "if not left < float('inf'):")),
        ],
        "a TIFF whose numbers are not its colours (palette, YCbCr, white as 0)": [
            off(TESTS + "files/test_odd_files.py::test_colours_of_a_tiff_are_what_its_numbers_say", "DID NOT RAISE",
                ("vision/picture_files.py", "if kind not in (TIFF_COLOURS if colour else TIFF_NUMBERS):", "if False:")),
        ],
        "frames that a camera repeats, or without a part, are recorded as normal ones": [
            off(TESTS + "setup/test_recording.py::test_a_repeat_is_found_among_all_frames", "repeat",
                ("cameras/setup/recording.py", "if digest in self._digests:", "if False:")),
            off(TESTS + "setup/test_recording.py::test_what_is_not_worth_recording", "no part",
                ("cameras/setup/recording.py", "if look.part is None:", "if False:")),
        ],
    },
}
