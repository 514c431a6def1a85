/* Records of a station, one JSON line each with "pass"; what PUB lost is reported as a gap.
 *   cc -O2 -I../generated subscribe.c -lzmq -o subscribe && ./subscribe [RESULTS] [STATION] [COUNT] [simulated]
 * The 64-byte record needs no JSON reader; of the state message a few values are looked up. Little-endian machines. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>
#include "asperity.h"

static char state[8193]; /* the last state message; empty: none */
static double beat_s = -1e9, empty_s; /* earliest time at which the heartbeat can have advanced; queue last seen empty */
static uint64_t next_id, missing[1024];
static unsigned missing_count;

static double now_s(void) {
    struct timespec t;
    return clock_gettime(CLOCK_MONOTONIC, &t) ? 1e9 : (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
static const char *find(const char *json, const char *name) { /* "" where it is absent */
    const char *at = strstr(json, name);
    return at ? at + strlen(name) + strspn(at + strlen(name), ": ") : "";
}
static double number(const char *json, const char *name) { return strtod(find(json, name), NULL); }
static uint32_t session(const char *json) { /* low 32 bits of the UUID */
    const char *at = find(json, "\"session\"");
    return strlen(at) > 37 ? (uint32_t)strtoul(at + 29, NULL, 16) : 0;
}
static uint32_t crc32(const unsigned char *bytes, size_t count) {
    uint32_t crc = ~0u;
    while (count--) {
        crc ^= *bytes++;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0xEDB88320u & -(crc & 1));
    }
    return ~crc;
}
static int may_pass(const struct asperity_record *r, int simulated) { /* energise to pass: every field must confirm it */
    double s = number(state, "\"state\"");
    int ready = !strncmp(find(state, "\"ready\""), "true", 4) && s >= ASPERITY_STATE_READY
             && s <= ASPERITY_STATE_CONTINUOUS_EXECUTION && r->session == session(state)
             && (now_s() - beat_s) * 1000 <= number(state, "\"beat_timeout_ms\"");
    int asked = r->trigger_id || !strncmp(find(state, "\"triggers\""), "\"free_run\"", 10);
    return ready && asked && r->flags & ASPERITY_FLAG_ACCEPT && r->verdict == ASPERITY_VERDICT_OK && r->score <= r->threshold
        && r->reason_code == ASPERITY_REASON_GOOD && r->state >= ASPERITY_STATE_READY
        && r->state <= ASPERITY_STATE_CONTINUOUS_EXECUTION && (simulated || !(r->flags & ASPERITY_FLAG_SIMULATED));
}

static void miss(uint64_t id) {
    if (missing_count < 1024) missing[missing_count++] = id;
    else printf("{\"gap\": %" PRIu64 "}\n", id);
}
static void observe(const char *body) {
    if (!*state || session(body) != session(state)) beat_s = -1e9; /* untrusted until its heartbeat has advanced */
    else if (number(body, "\"beat\"") > number(state, "\"beat\"")) beat_s = empty_s;
    snprintf(state, sizeof state, "%s", body);
    uint64_t last = (uint64_t)number(state, "\"last_result_id\""), in_flight = (uint64_t)number(state, "\"in_flight\"");
    if (!next_id) next_id = last + 1 > in_flight ? last + 1 - in_flight : 1;
    for (; next_id <= last; next_id++) miss(next_id);
    while (!in_flight && missing_count) printf("{\"gap\": %" PRIu64 "}\n", missing[--missing_count]);
}
static int is_new(uint64_t id) { /* ids come as frames are answered, not in order */
    for (unsigned n = 0; n < missing_count; n++) if (missing[n] == id) return missing[n] = missing[--missing_count], 1;
    if (!next_id || id < next_id) return 0;
    for (; next_id < id; next_id++) miss(next_id);
    return next_id = id + 1, 1;
}

int main(int argc, char **argv) {
    const char *results = argc > 1 ? argv[1] : "tcp://127.0.0.1:5561", *station = argc > 2 ? argv[2] : "st1";
    long count = argc > 3 ? atol(argv[3]) : 0, printed = 0;
    char topic[64], body[8193];
    void *sub = zmq_socket(zmq_ctx_new(), ZMQ_SUB);
    snprintf(topic, sizeof topic, "record/%s/", station);
    zmq_setsockopt(sub, ZMQ_SUBSCRIBE, topic, strlen(topic));
    snprintf(topic, sizeof topic, "state/%s/", station);
    zmq_setsockopt(sub, ZMQ_SUBSCRIBE, topic, strlen(topic));
    if (zmq_connect(sub, results)) return fprintf(stderr, "%s: %s\n", results, zmq_strerror(zmq_errno())), 1;
    zmq_pollitem_t item = {sub, 0, ZMQ_POLLIN, 0};
    while (!count || printed < count) {
        if (!zmq_poll(&item, 1, 0)) empty_s = now_s(), fflush(stdout), zmq_poll(&item, 1, 50);
        if (zmq_recv(sub, topic, sizeof topic, ZMQ_DONTWAIT) < 0) continue;
        struct asperity_record r;
        int nbytes = zmq_recv(sub, body, sizeof body - 1, 0);
        if (nbytes < 0 || nbytes >= (int)sizeof body) continue;
        body[nbytes] = 0;
        if (*topic == 's') observe(body);
        if (*topic == 's' || nbytes != sizeof r || (memcpy(&r, body, sizeof r), r.magic != ASPERITY_RECORD_MAGIC)
            || r.crc != crc32((unsigned char *)body, 60) || r.version != ASPERITY_RECORD_VERSION || !is_new(r.result_id))
            continue;
        printf("{\"version\": %u, \"state\": %u, \"verdict\": %u, \"flags\": %u, \"result_id\": %" PRIu64 ", \"seq\": %" PRIu64
               ", \"t_exposure_us\": %" PRId64 ", \"session\": %u, \"trigger_id\": %u, \"score\": %.9g, \"threshold\": %.9g, "
               "\"latency_us\": %u, \"reason_code\": %u, \"reason\": \"%s\", \"station_number\": %u, \"part_number\": %u, "
               "\"pass\": %s}\n", r.version, r.state, r.verdict, r.flags, r.result_id, r.seq, r.t_exposure_us, r.session,
               r.trigger_id, r.score, r.threshold, r.latency_us, r.reason_code, asperity_reason_name(r.reason_code),
               r.station_number, r.part_number, may_pass(&r, argc > 4 && !strcmp(argv[4], "simulated")) ? "true" : "false");
        printed++;
    }
    return 0;
}
