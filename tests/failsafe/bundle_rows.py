"""The rows of docs/failsafe.md about what a calibration leaves and a bundle holds: what each rests on, switched off."""
# ruff: noqa: E501 - the code that is switched off stands here as it stands there

from __future__ import annotations

from tests.failsafe.rows import Off, off

TABLE: dict[str, dict[str, list[Off]]] = {
    "The inspector": {
        "no part under the camera of a recipe from whose view nothing is removed (a sheet, a board)": [
            off("calibration/frames/test_flat_products.py::test_an_empty_view_is_never_ok[heights-options0]",
                "Verdict.OK", ("vision/regions.py", "level_mm=math.nan if plane else -0.5 * float(top + base),", "level_mm=0.0,")),
            off("runtime/bundle/test_bundle_manifest.py::test_where_nothing_is_removed_the_level_is_checked_too",
                "DID NOT RAISE", ("bundle/ceilings.py", "needed = silhouette_figures(manifest.geometry)", "needed = tuple(ranges)")),
        ],
        "the engine returns constants": [
            off("runtime/engines/test_parity_gate.py::test_constants_that_were_signed_into_the_bundle_do_not_pass_either",
                "DID NOT RAISE",
                ("bundle/checks.py", 'if golden.kind == "normal" and golden.verdict == "ng":', "if False:")),
            off("runtime/engines/test_parity_gate.py::test_an_engine_that_disagrees_does_not[constant]",
                "DID NOT RAISE",
                # Verdict and reason, score, and what the verdict rests on.
                ("engines/parity_gate.py", "if judgement.score is None or seen != golden.verdict or", "if False and"),
                ("engines/parity_gate.py", "if not abs(judgement.score - golden.score) <= tolerance:", "if False:"),
                ("engines/parity_gate.py", "    check_evidence(checks, decision)", "    pass")),
        ],
        "a bundle is modified, or replaced by a broken one": [
            off("system/test_line.py::test_the_recipe_changes_between_two_frames_of_a_running_stream",
                "'RECIPE' in", ("inspector/controller.py", 'if alarm:\n            self.alarms["RECIPE"] = why', "if False:\n            pass")),
            off("runtime/judging/test_recipes.py::test_a_child_process_finds_out_first_and_says_why",
                "DID NOT RAISE", ("judging/recipes.py", "if done.returncode != 0:", "if False:")),
        ],
        "a malicious bundle (external weights, an endless loop, decompression bombs, pipes), even if signed": [
            off("runtime/bundle/test_hostile_bundles.py"
                f"::test_a_hostile_bundle_is_refused_with_a_sentence_soon_and_in_little_memory[{what}]", says, *patches)
            for what, says, patches in (
                ("doubled 30 times", "startswith", [
                    ("bundle/checks.py", "if size > MAX_TENSOR_VALUES or total > MAX_GRAPH_VALUES:", "if False:"),
                ]),
                # All of it is read before it is found out.
                ("3 GB of bank", "was modified or damaged", [
                    ("bundle/reader.py", "if not 0 < file.nbytes <= limits[name]:", "if False:"),
                ]),
                # Opened without waiting, and refused.
                ("manifest is a pipe", "timed out", [
                    ("files.py", "flags | os.O_NONBLOCK |", "flags |"),
                    ("files.py", "if not stat.S_ISREG(mode):", "if False:"),
                ]),
            )
        ],
        "a recipe whose frames are too large for `[sockets]`": [
            off("runtime/judging/test_recipes.py::test_a_recipe_whose_frames_the_stations_limits_refuse_does_not_open",
                "ParityError", ("settings/cross_checks.py", "if allowed < least * pixels:", "if False:")),
        ],
        "a bundle whose window has fewer pixels than patches, so that with a mask some are never judged": [
            off("runtime/bundle/test_sizes.py::test_a_size_that_no_recipe_can_have_is_refused_though_signed[change3-words3]",
                "DID NOT RAISE", ("bundle/sizes.py", "if side_px < fewest:", "if False:")),
        ],
        "a golden picture of 16 bits, incomplete or damaged though signed, which a decoder would cut or fill up": [
            off("runtime/bundle/test_sizes.py::test_a_golden_picture_of_16_bits_is_not_cut_to_8[16]",
                "DID NOT RAISE", ("vision/picture_files.py", "if depth not in bits:", "if False:")),
        ],
        "an older bundle of a recipe is restored": [
            off("runtime/judging/test_served_bundles.py::test_an_older_bundle_opens_on_request_alone_and_says_so",
                "DID NOT RAISE", ("judging/served_bundles.py", "if manifest.created_us >= newest_us:", "if True:")),
        ],
        "that record is missing, damaged or another user's": [
            off("runtime/judging/test_served_bundles.py::test_a_memory_that_cannot_tell_opens_nothing_unasked",
                "DID NOT RAISE",
                # As a bundle is looked at, and as it is served.
                ("judging/served_bundles.py", "if not config.engine.allow_older:\n            raise\n        return f", "if False:\n            raise\n        return f"),
                ("judging/served_bundles.py", "if not config.engine.allow_older:\n            raise\n        memory", "if False:\n            raise\n        memory")),
        ],
        "a signed bundle with limits that let everything pass": [
            off("runtime/bundle/test_bundle_manifest.py::test_a_number_that_loosens_a_check_beyond_reason_is_refused_though_signed",
                "DID NOT RAISE", ("bundle/checks.py", "    check_ceilings(manifest)", "    pass")),
            off("runtime/engines/test_parity_gate.py::test_distances_that_were_signed_into_the_bundle_are_no_evidence",
                "DID NOT RAISE", ("engines/parity_gate.py", "    check_evidence(checks, decision)", "    pass")),
            off("runtime/engines/test_parity_gate.py"
                "::test_a_modality_that_does_not_count_need_not_see_and_one_of_each_kind_must_count",
                "DID NOT RAISE", ("engines/parity_gate.py", "if wanted and not found:", "if False:")),
        ],
        "a part that lies in no pose of the good ones, or has something where they have nothing": [
            off("runtime/vision/test_height_residual.py::test_what_good_frames_do_not_have_is_as_strange_as_can_be",
                "assert", ("vision/height_residual.py", "own[foreign, 0::2], own[foreign, 1::2] = LARGEST, -LARGEST", "pass")),
            off("runtime/cuda/test_surface_kernels.py::test_a_part_in_no_pose_is_as_strange_as_can_be[lost]",
                "assert not", ("cuda/heights.py", "np.float64(MOST_SHIFT_SHARE * surface.size)", "np.float64(np.inf)")),
        ],
        "a bundle judges by heights on the GPU, and the mean part is missing or of another window": [
            off("runtime/cuda/test_surface_kernels.py::test_what_cannot_be_seen_is_refused",
                "DID NOT RAISE", ("cuda/heights.py", "if model.side != size:", "if False:")),
        ],
        "a bundle judges by a modality whose constants are not in it": [
            off("runtime/bundle/test_bundle_manifest.py::test_the_constants_of_a_modality_are_there_where_it_is_and_only_there",
                "DID NOT RAISE", ("bundle/surfaces.py", "if (constants is not None) != (name in network.modalities):", "if False:")),
        ],
        "a network or bank of zeros, signed again": [
            off("export/test_export_bundle.py::test_a_zeroed_graph_does_not_open_though_signed_again",
                "DID NOT RAISE", ("bundle/checks.py", "if not large or all(large):", "if False:")),
            off("export/test_export_bundle.py::test_a_zeroed_bank_does_not_open_though_signed_again",
                "DID NOT RAISE",
                ("bundle/checks.py", "if fault := check(bank):", "if fault := False:")),
        ],
    },
}  # fmt: skip
