/* Made from the Python sources by `make documents`; do not edit. */
#ifndef ASPERITY_H
#define ASPERITY_H
#include <stddef.h>
#include <stdint.h>

#define ASPERITY_WIRE_VERSION 1u
#define ASPERITY_RECORD_BYTES 64u
#define ASPERITY_RECORD_MAGIC 1380995905u
#define ASPERITY_RECORD_VERSION 1u

enum asperity_verdict {
    ASPERITY_VERDICT_UNKNOWN = 0,
    ASPERITY_VERDICT_OK = 1,
    ASPERITY_VERDICT_NG = 2,
};

enum asperity_state {
    ASPERITY_STATE_PREOPERATIONAL = 1,
    ASPERITY_STATE_HALTED = 2,
    ASPERITY_STATE_ERROR = 3,
    ASPERITY_STATE_INITIALIZED = 5,
    ASPERITY_STATE_READY = 6,
    ASPERITY_STATE_SINGLE_EXECUTION = 7,
    ASPERITY_STATE_CONTINUOUS_EXECUTION = 8,
};

enum asperity_reason {
    ASPERITY_REASON_NOT_JUDGED = 0, /* no decision has been made yet */
    ASPERITY_REASON_GOOD = 1, /* all scores are finite and at or below the threshold; shape within range */
    ASPERITY_REASON_SCORE_ABOVE_THRESHOLD = 2, /* the anomaly score is above the threshold */
    ASPERITY_REASON_SHAPE_OUT_OF_RANGE = 3, /* outline, size, height or missing points are outside the range of the normal parts */
    ASPERITY_REASON_REFUSED_MESSAGE = 100, /* the message violates the wire protocol */
    ASPERITY_REASON_REFUSED_DATA = 101, /* the pixels or points cannot be used */
    ASPERITY_REASON_REFUSED_UNIT = 102, /* the unit of length is unknown and cannot be derived from the depth */
    ASPERITY_REASON_TOO_FEW_POINTS = 103, /* too few valid points on the part */
    ASPERITY_REASON_WRONG_CAMERA = 104, /* the frame is from a camera that is not assigned to this station */
    ASPERITY_REASON_WRONG_RECIPE = 105, /* the frame expects a recipe other than the active one */
    ASPERITY_REASON_CAMERA_MOVED = 106, /* the background is no longer where it was during calibration */
    ASPERITY_REASON_FROZEN_IMAGE = 107, /* the frame is identical to the previous one */
    ASPERITY_REASON_DUPLICATE_SEQ = 108, /* this seq was received before or is lower than the previous one */
    ASPERITY_REASON_SEQ_JUMP = 109, /* seq jumped by more than the configured limit */
    ASPERITY_REASON_TRIGGER_EXPIRED = 110, /* the frame carries a trigger that has expired or was never issued */
    ASPERITY_REASON_UNANNOUNCED = 111, /* this exposure was not announced, on a line with triggers */
    ASPERITY_REASON_AMBIGUOUS = 112, /* the exposure of this part cannot be determined: two were possible, or one in between is missing */
    ASPERITY_REASON_UNSYNCED = 113, /* announcements and exposures are not synchronized yet */
    ASPERITY_REASON_CAMERA_CONFLICT = 114, /* two senders are using this camera name */
    ASPERITY_REASON_VIEW_MISSING = 115, /* a view of the part is missing, or views are unknown for different reasons */
    ASPERITY_REASON_VIEW_CONFLICT = 116, /* a view of the part came twice, or is of another part, trigger or recipe */
    ASPERITY_REASON_STALE = 200, /* the frame was too old when its turn came to be judged */
    ASPERITY_REASON_OVERLOAD = 201, /* a newer frame replaced this one in the queue */
    ASPERITY_REASON_DEADLINE = 202, /* no verdict was reached within the deadline */
    ASPERITY_REASON_LOST = 203, /* a gap in seq shows that this frame was taken or sent but never arrived */
    ASPERITY_REASON_NO_FRAME = 204, /* a trigger was issued but no frame arrived in time */
    ASPERITY_REASON_NOT_RUNNING = 300, /* the station does not judge frames in its current state */
    ASPERITY_REASON_ENGINE = 301, /* the engine failed or returned NaN or infinity */
    ASPERITY_REASON_RESTARTED = 302, /* the inspector was restarted while this frame was being processed */
    ASPERITY_REASON_SHUTDOWN = 303, /* the inspector was asked to stop before this frame was judged */
    ASPERITY_REASON_ABORTED = 304, /* an operator aborted the processing of this frame */
    ASPERITY_REASON_TIMING_ONLY = 305, /* the bundle is for timing only: its networks were never shown to detect a defect */
};

enum asperity_flag {
    ASPERITY_FLAG_ACCEPT = 1,
    ASPERITY_FLAG_DEADLINE_MISSED = 2,
    ASPERITY_FLAG_SIMULATED = 4,
    ASPERITY_FLAG_VIEW = 8,
};

/* A record as it comes over the wire, on a little-endian machine. */
struct asperity_record {
    uint32_t magic;
    uint8_t version;
    uint8_t state;
    uint8_t verdict;
    uint8_t flags;
    uint64_t result_id;
    uint64_t seq;
    int64_t t_exposure_us;
    uint32_t session;
    uint32_t trigger_id;
    float score;
    float threshold;
    uint32_t latency_us;
    uint16_t reason_code;
    uint16_t station_number;
    uint32_t part_number;
    uint32_t crc;
};
_Static_assert(sizeof(struct asperity_record) == ASPERITY_RECORD_BYTES, "record");
_Static_assert(offsetof(struct asperity_record, magic) == 0, "magic");
_Static_assert(offsetof(struct asperity_record, version) == 4, "version");
_Static_assert(offsetof(struct asperity_record, state) == 5, "state");
_Static_assert(offsetof(struct asperity_record, verdict) == 6, "verdict");
_Static_assert(offsetof(struct asperity_record, flags) == 7, "flags");
_Static_assert(offsetof(struct asperity_record, result_id) == 8, "result_id");
_Static_assert(offsetof(struct asperity_record, seq) == 16, "seq");
_Static_assert(offsetof(struct asperity_record, t_exposure_us) == 24, "t_exposure_us");
_Static_assert(offsetof(struct asperity_record, session) == 32, "session");
_Static_assert(offsetof(struct asperity_record, trigger_id) == 36, "trigger_id");
_Static_assert(offsetof(struct asperity_record, score) == 40, "score");
_Static_assert(offsetof(struct asperity_record, threshold) == 44, "threshold");
_Static_assert(offsetof(struct asperity_record, latency_us) == 48, "latency_us");
_Static_assert(offsetof(struct asperity_record, reason_code) == 52, "reason_code");
_Static_assert(offsetof(struct asperity_record, station_number) == 54, "station_number");
_Static_assert(offsetof(struct asperity_record, part_number) == 56, "part_number");
_Static_assert(offsetof(struct asperity_record, crc) == 60, "crc");

static inline const char *asperity_reason_name(unsigned code) {
    switch (code) {
    case 0: return "NOT_JUDGED";
    case 1: return "GOOD";
    case 2: return "SCORE_ABOVE_THRESHOLD";
    case 3: return "SHAPE_OUT_OF_RANGE";
    case 100: return "REFUSED_MESSAGE";
    case 101: return "REFUSED_DATA";
    case 102: return "REFUSED_UNIT";
    case 103: return "TOO_FEW_POINTS";
    case 104: return "WRONG_CAMERA";
    case 105: return "WRONG_RECIPE";
    case 106: return "CAMERA_MOVED";
    case 107: return "FROZEN_IMAGE";
    case 108: return "DUPLICATE_SEQ";
    case 109: return "SEQ_JUMP";
    case 110: return "TRIGGER_EXPIRED";
    case 111: return "UNANNOUNCED";
    case 112: return "AMBIGUOUS";
    case 113: return "UNSYNCED";
    case 114: return "CAMERA_CONFLICT";
    case 115: return "VIEW_MISSING";
    case 116: return "VIEW_CONFLICT";
    case 200: return "STALE";
    case 201: return "OVERLOAD";
    case 202: return "DEADLINE";
    case 203: return "LOST";
    case 204: return "NO_FRAME";
    case 300: return "NOT_RUNNING";
    case 301: return "ENGINE";
    case 302: return "RESTARTED";
    case 303: return "SHUTDOWN";
    case 304: return "ABORTED";
    case 305: return "TIMING_ONLY";
    default: return "?"; /* unknown: reject */
    }
}

#endif
