"""The reasons of results: the single list of reason codes.

It is the source of the table in ``docs/wire.md`` and of the constants in the client kits. A code, once released, is
never given another meaning. A receiver rejects the part on any code it does not know.
"""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """Reason code of a result (u16 on the wire). ``meaning`` and ``remedy`` are for people."""

    meaning: str
    remedy: str

    def __new__(cls, code: int, meaning: str = "", remedy: str = "") -> Reason:
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        member.remedy = remedy
        return member

    NOT_JUDGED = 0, "no decision has been made yet", "none: every result starts with this reason"

    # 1-99: the frame was judged
    GOOD = 1, "all scores are finite and at or below the threshold; shape within range", "none"
    SCORE_ABOVE_THRESHOLD = (
        2,
        "the anomaly score is above the threshold",
        "check the anomaly map; region marks the worst spot",
    )
    SHAPE_OUT_OF_RANGE = (
        3,
        "outline, size, height or missing points are outside the range of the normal parts",
        "check for missing material, a wrong part or a part outside the field of view",
    )

    # 100-199: the frame was refused before it was judged
    REFUSED_MESSAGE = (
        100,
        "the message violates the wire protocol",
        "see the event text; check the sender against docs/wire.md",
    )
    REFUSED_DATA = (
        101,
        "the pixels or points cannot be used",
        "see the event text: size, unit, or too few valid points",
    )
    REFUSED_UNIT = (
        102,
        "the unit of length is unknown and cannot be derived from the depth",
        "send a unit with the stream, or start with --unit",
    )
    TOO_FEW_POINTS = (
        103,
        "too few valid points on the part",
        "check the projector, the exposure and whether a part is present",
    )
    WRONG_CAMERA = (
        104,
        "the frame is from a camera that is not assigned to this station",
        "correct the camera name in station.toml or in the sender",
    )
    WRONG_RECIPE = 105, "the frame expects a recipe other than the active one", "prepare that recipe first"
    CAMERA_MOVED = (
        106,
        "the background is no longer where it was during calibration",
        "restore the camera position, or calibrate again",
    )
    FROZEN_IMAGE = 107, "the frame is identical to the previous one", "restart the camera: it is repeating an old image"
    DUPLICATE_SEQ = (
        108,
        "this seq was received before or is lower than the previous one",
        "the sender must increment seq with every exposure",
    )
    SEQ_JUMP = (
        109,
        "seq jumped by more than the configured limit",
        "check the sender's counter; counting continues from this seq",
    )
    TRIGGER_EXPIRED = (
        110,
        "the frame carries a trigger that has expired or was never issued",
        "increase timeout_ms, or find out why the camera is late",
    )
    UNANNOUNCED = (
        111,
        "this exposure was not announced, on a line with triggers",
        "send trigger or expect for each part; find out what else triggers the camera",
    )
    AMBIGUOUS = (
        112,
        "the exposure of this part cannot be determined: two were possible, or one in between is missing",
        "check for a bouncing sensor, duplicate announcements and lost or refused frames",
    )
    UNSYNCED = (
        113,
        "announcements and exposures are not synchronized yet",
        "pause the line for [hard_wired] quiet_ms, then announce and expose the next part",
    )
    CAMERA_CONFLICT = (
        114,
        "two senders are using this camera name",
        "stop one of them; then wait until it is disconnected, or reset the station",
    )
    VIEW_MISSING = (
        115,
        "a view of the part is missing, or views are unknown for different reasons",
        "see views in the result and the results of those views: camera, trigger wiring, timeout_ms, complete_ms",
    )
    VIEW_CONFLICT = (
        116,
        "a view of the part came twice, or is of another part, trigger or recipe",
        "trigger each view of a part once, with the part's own trigger_id; find out what else triggers the camera",
    )

    # 200-299: time or load
    STALE = 200, "the frame was too old when its turn came to be judged", "check the camera clock and the load"
    OVERLOAD = (
        201,
        "a newer frame replaced this one in the queue",
        "lower the camera's frame rate, or use a faster computer",
    )
    DEADLINE = 202, "no verdict was reached within the deadline", "increase deadline_ms, or use a faster computer"
    LOST = (
        203,
        "a gap in seq shows that this frame was taken or sent but never arrived",
        "check the network link and the sender's buffers",
    )
    NO_FRAME = 204, "a trigger was issued but no frame arrived in time", "check the trigger wiring and the camera"

    # 300-399: the station
    NOT_RUNNING = (
        300,
        "the station does not judge frames in its current state",
        "start the station, or wait until it is ready",
    )
    ENGINE = 301, "the engine failed or returned NaN or infinity", "check the log; reset the station"
    RESTARTED = 302, "the inspector was restarted while this frame was being processed", "inspect the part again"
    SHUTDOWN = 303, "the inspector was asked to stop before this frame was judged", "inspect the part again"
    ABORTED = 304, "an operator aborted the processing of this frame", "inspect the part again"
    TIMING_ONLY = (
        305,
        "the bundle is for timing only: its networks were never shown to detect a defect",
        "use a bundle that was exported without --timing-only",
    )


JUDGED = frozenset({Reason.GOOD, Reason.SCORE_ABOVE_THRESHOLD, Reason.SHAPE_OUT_OF_RANGE})
"""The reasons of a frame that got a verdict; with every other reason the verdict is unknown."""
