"""Why a result says what it says: the one list of reason codes.

It is the source of the table in ``docs/wire.md`` and of the constants in the client kits. A code, once released, is
never given another meaning. A receiver that meets a code it does not know rejects the part.
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

    NOT_JUDGED = 0, "nothing has been decided yet", "none: every result is born with this reason"

    # 1-99: the frame was judged
    GOOD = 1, "every score finite and at or below its threshold, shape within range", "none"
    SCORE_ABOVE_THRESHOLD = (
        2,
        "the anomaly score is above the threshold",
        "look at the map: the worst spot is in region",
    )
    SHAPE_OUT_OF_RANGE = (
        3,
        "outline, size, height or missing points differ from every normal part",
        "look for missing material, a wrong part or a part outside the view",
    )

    # 100-199: the frame was refused before it was judged
    REFUSED_MESSAGE = (
        100,
        "the message breaks the wire contract",
        "see the text of the event; compare the sender with docs/wire.md",
    )
    REFUSED_DATA = (
        101,
        "the pixels or points cannot be used",
        "see the text of the event: size, unit, or too few valid points",
    )
    REFUSED_UNIT = (
        102,
        "the unit of length is not known and cannot be told from the depth",
        "send a unit with the stream, or start with --unit",
    )
    TOO_FEW_POINTS = 103, "too few valid points on the part", "check projector, exposure and whether a part is there"
    WRONG_CAMERA = (
        104,
        "the frame is of a camera this station does not listen to",
        "correct the camera's name in station.toml or in the sender",
    )
    WRONG_RECIPE = 105, "the frame expects another recipe than the one in force", "prepare that recipe first"
    CAMERA_MOVED = 106, "the background is not where it was at calibration", "put the camera back, or calibrate again"
    FROZEN_IMAGE = 107, "the frame is identical to the one before", "restart the camera: it repeats an old picture"
    DUPLICATE_SEQ = 108, "this seq was seen before or goes back", "the sender must count every exposure upwards"
    SEQ_JUMP = 109, "seq leapt by more than is believed", "check the sender's counter; counting goes on from here"
    TRIGGER_EXPIRED = (
        110,
        "the frame carries a trigger that is over or was never given",
        "lengthen timeout_ms or find out why the camera is late",
    )
    UNANNOUNCED = (
        111,
        "nobody announced this exposure, on a line with triggers",
        "give trigger or expect for each part; find what else fires the camera",
    )
    AMBIGUOUS = (
        112,
        "it cannot be told which exposure is this part's: two were possible, or one is missing between",
        "look for a bouncing sensor, doubled announcements and lost or refused frames",
    )
    UNSYNCED = (
        113,
        "announcements and exposures are not matched yet",
        "let the line pause for [hard_wired] quiet_ms, then announce and expose the next part",
    )
    CAMERA_CONFLICT = (
        114,
        "two senders claim to be this camera",
        "end one of them; then wait until it is disconnected, or reset the station",
    )

    # 200-299: time or load
    STALE = 200, "the frame was too old when its turn came", "check the camera's clock and the load"
    OVERLOAD = 201, "a newer frame took this one's place in the queue", "lower the camera's rate or use a faster box"
    DEADLINE = 202, "no verdict within the deadline", "lengthen deadline_ms or use a faster box"
    LOST = (
        203,
        "seq shows that this frame was sent or taken but never arrived",
        "check the link and the sender's buffers",
    )
    NO_FRAME = 204, "a trigger was given and no frame came in time", "check the trigger wiring and the camera"

    # 300-399: the station
    NOT_RUNNING = 300, "the station is not judging in its present state", "start it, or wait until it is ready"
    ENGINE = 301, "the engine failed or gave a number that is none", "see the log; reset the station"
    RESTARTED = 302, "the inspector was restarted while this frame was in work", "inspect the part again"
    SHUTDOWN = 303, "the inspector was told to stop before this frame was judged", "inspect the part again"
    ABORTED = 304, "an operator aborted the work on this frame", "inspect the part again"
    TIMING_ONLY = (
        305,
        "the bundle is for timing only: its networks were never shown to see a defect",
        "take a bundle that was exported without --timing-only",
    )


JUDGED = frozenset({Reason.GOOD, Reason.SCORE_ABOVE_THRESHOLD, Reason.SHAPE_OUT_OF_RANGE})
"""The reasons that belong to a frame with a verdict; with every other reason the verdict is unknown."""
