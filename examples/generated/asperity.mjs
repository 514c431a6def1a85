// Made from the Python sources by `make documents`; do not edit.
export const WIRE_VERSION = 1;
export const RECORD_BYTES = 64;
export const RECORD_MAGIC = 1380995905;
export const RECORD_VERSION = 1;

export const VERDICT = Object.freeze({
  UNKNOWN: 0,
  OK: 1,
  NG: 2,
});

export const STATE = Object.freeze({
  PREOPERATIONAL: 1,
  HALTED: 2,
  ERROR: 3,
  INITIALIZED: 5,
  READY: 6,
  SINGLE_EXECUTION: 7,
  CONTINUOUS_EXECUTION: 8,
});

export const REASON = Object.freeze({
  NOT_JUDGED: 0,  // no decision has been made yet
  GOOD: 1,  // all scores are finite and at or below the threshold; shape within range
  SCORE_ABOVE_THRESHOLD: 2,  // the anomaly score is above the threshold
  SHAPE_OUT_OF_RANGE: 3,  // outline, size, height or missing points are outside the range of the normal parts
  REFUSED_MESSAGE: 100,  // the message violates the wire protocol
  REFUSED_DATA: 101,  // the pixels or points cannot be used
  REFUSED_UNIT: 102,  // the unit of length is unknown and cannot be derived from the depth
  TOO_FEW_POINTS: 103,  // too few valid points on the part
  WRONG_CAMERA: 104,  // the frame is from a camera that is not assigned to this station
  WRONG_RECIPE: 105,  // the frame expects a recipe other than the active one
  CAMERA_MOVED: 106,  // the background is no longer where it was during calibration
  FROZEN_IMAGE: 107,  // the frame is identical to the previous one
  DUPLICATE_SEQ: 108,  // this seq was received before or is lower than the previous one
  SEQ_JUMP: 109,  // seq jumped by more than the configured limit
  TRIGGER_EXPIRED: 110,  // the frame carries a trigger that has expired or was never issued
  UNANNOUNCED: 111,  // this exposure was not announced, on a line with triggers
  AMBIGUOUS: 112,  // the exposure of this part cannot be determined: two were possible, or one in between is missing
  UNSYNCED: 113,  // announcements and exposures are not synchronized yet
  CAMERA_CONFLICT: 114,  // two senders are using this camera name
  VIEW_MISSING: 115,  // a view of the part is missing, or views are unknown for different reasons
  VIEW_CONFLICT: 116,  // a view of the part came twice, or is of another part, trigger or recipe
  STALE: 200,  // the frame was too old when its turn came to be judged
  OVERLOAD: 201,  // a newer frame replaced this one in the queue
  DEADLINE: 202,  // no verdict was reached within the deadline
  LOST: 203,  // a gap in seq shows that this frame was taken or sent but never arrived
  NO_FRAME: 204,  // a trigger was issued but no frame arrived in time
  NOT_RUNNING: 300,  // the station does not judge frames in its current state
  ENGINE: 301,  // the engine failed or returned NaN or infinity
  RESTARTED: 302,  // the inspector was restarted while this frame was being processed
  SHUTDOWN: 303,  // the inspector was asked to stop before this frame was judged
  ABORTED: 304,  // an operator aborted the processing of this frame
  TIMING_ONLY: 305,  // the bundle is for timing only: its networks were never shown to detect a defect
});

export const FLAG = Object.freeze({
  ACCEPT: 1,
  DEADLINE_MISSED: 2,
  SIMULATED: 4,
  VIEW: 8,
});

// [name, offset, kind]
export const RECORD = Object.freeze([
  ["magic", 0, "u32"],
  ["version", 4, "u8"],
  ["state", 5, "u8"],
  ["verdict", 6, "u8"],
  ["flags", 7, "u8"],
  ["result_id", 8, "u64"],
  ["seq", 16, "u64"],
  ["t_exposure_us", 24, "i64"],
  ["session", 32, "u32"],
  ["trigger_id", 36, "u32"],
  ["score", 40, "f32"],
  ["threshold", 44, "f32"],
  ["latency_us", 48, "u32"],
  ["reason_code", 52, "u16"],
  ["station_number", 54, "u16"],
  ["part_number", 56, "u32"],
  ["crc", 60, "u32"],
]);

export const READY_STATES = Object.freeze([6, 7, 8]);
export const JUDGED = Object.freeze([1, 2, 3]);
