"""Made from the Python sources by `make documents`; do not edit."""

WIRE_VERSION = 1
RECORD_BYTES = 64
RECORD_MAGIC = 1380995905
RECORD_VERSION = 1

VERDICT = {
    "UNKNOWN": 0,
    "OK": 1,
    "NG": 2,
}

STATE = {
    "PREOPERATIONAL": 1,
    "HALTED": 2,
    "ERROR": 3,
    "INITIALIZED": 5,
    "READY": 6,
    "SINGLE_EXECUTION": 7,
    "CONTINUOUS_EXECUTION": 8,
}

REASON = {
    "NOT_JUDGED": 0,  # nothing has been decided yet
    "GOOD": 1,  # every score finite and at or below its threshold, shape within range
    "SCORE_ABOVE_THRESHOLD": 2,  # the anomaly score is above the threshold
    "SHAPE_OUT_OF_RANGE": 3,  # outline, size, height or missing points differ from every normal part
    "REFUSED_MESSAGE": 100,  # the message breaks the wire contract
    "REFUSED_DATA": 101,  # the pixels or points cannot be used
    "REFUSED_UNIT": 102,  # the unit of length is not known and cannot be told from the depth
    "TOO_FEW_POINTS": 103,  # too few valid points on the part
    "WRONG_CAMERA": 104,  # the frame is of a camera this station does not listen to
    "WRONG_RECIPE": 105,  # the frame expects another recipe than the one in force
    "CAMERA_MOVED": 106,  # the background is not where it was at calibration
    "FROZEN_IMAGE": 107,  # the frame is identical to the one before
    "DUPLICATE_SEQ": 108,  # this seq was seen before or goes back
    "SEQ_JUMP": 109,  # seq leapt by more than is believed
    "TRIGGER_EXPIRED": 110,  # the frame carries a trigger that is over or was never given
    "UNANNOUNCED": 111,  # nobody announced this exposure, on a line with triggers
    "AMBIGUOUS": 112,  # it cannot be told which exposure is this part's: two were possible, or one is missing between
    "UNSYNCED": 113,  # announcements and exposures are not matched yet
    "CAMERA_CONFLICT": 114,  # two senders claim to be this camera
    "STALE": 200,  # the frame was too old when its turn came
    "OVERLOAD": 201,  # a newer frame took this one's place in the queue
    "DEADLINE": 202,  # no verdict within the deadline
    "LOST": 203,  # seq shows that this frame was sent or taken but never arrived
    "NO_FRAME": 204,  # a trigger was given and no frame came in time
    "NOT_RUNNING": 300,  # the station is not judging in its present state
    "ENGINE": 301,  # the engine failed or gave a number that is none
    "RESTARTED": 302,  # the inspector was restarted while this frame was in work
    "SHUTDOWN": 303,  # the inspector was told to stop before this frame was judged
    "ABORTED": 304,  # an operator aborted the work on this frame
    "TIMING_ONLY": 305,  # the bundle is for timing only: its networks were never shown to see a defect
}

FLAG = {
    "ACCEPT": 1,
    "DEADLINE_MISSED": 2,
    "SIMULATED": 4,
}

# struct format of the record and the names of its fields
RECORD_FORMAT = "<I4BQQqIIffIHHII"
RECORD = [
    "magic",
    "version",
    "state",
    "verdict",
    "flags",
    "result_id",
    "seq",
    "t_exposure_us",
    "session",
    "trigger_id",
    "score",
    "threshold",
    "latency_us",
    "reason_code",
    "station_number",
    "part_number",
    "crc",
]
READY_STATES = (6, 7, 8)
JUDGED = (1, 2, 3)
