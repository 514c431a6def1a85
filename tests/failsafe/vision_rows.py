"""The rows of docs/failsafe.md about what a frame is judged by: what each rests on, switched off."""

from __future__ import annotations

from tests.failsafe.rows import Off, off

TABLE: dict[str, dict[str, list[Off]]] = {
    "The inspector": {
        "a part that lies in no pose of the good ones, or has something where they have nothing": [
            off("runtime/vision/test_height_residual.py::test_what_good_frames_do_not_have_is_as_strange_as_can_be",
                "assert",
                ("vision/height_residual.py",
                 "own[foreign, 0::2], own[foreign, 1::2] = LARGEST, -LARGEST", "pass")),
        ],
        "a bundle judges by a modality whose constants are not in it": [
            off("runtime/bundle/test_bundle_manifest.py"
                "::test_the_constants_of_a_modality_are_there_where_it_is_and_only_there",
                "DID NOT RAISE",
                ("bundle/surfaces.py", "if (constants is not None) != (name in network.modalities):", "if False:")),
        ],
        "a tile that holds a small piece of the part is taken for empty and not given to the network": [
            off("runtime/vision/test_tiles.py::test_tiles_without_a_patch_to_score_cost_nothing_and_lose_nothing",
                "assert", ("vision/tiles.py", "of_tile(filled, index)).any()", "of_tile(filled, index)).all()")),
        ],
        "on the GPU a patch has the features of another tile or place": [
            off("runtime/cuda/test_cuda_engine.py::test_scores_are_the_cpu_engines[tiles-False]",
                "Not equal to tolerance", ("cuda/tiles.py", "row * cell, column * cell", "0, 0")),
        ],
    },
}  # fmt: skip
