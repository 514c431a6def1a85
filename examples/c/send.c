/* A camera: sends COUNT frames of colour and points at RATE per second, one message per exposure.
 *
 *   cc -O2 -I../generated send.c -lzmq -o send && ./send [FRAMES] [CAMERA] [COUNT] [RATE] [RESULTS] [STATION]
 * With RESULTS, the inspector's results socket, each frame answers a trigger of STATION.
 * "seq" counts every exposure, sent or not, so that the station can report what is missing. Little-endian machines. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>
#include "asperity.h"

enum { ROWS = 24, COLUMNS = 32 };
static unsigned char rgb[ROWS * COLUMNS * 3];
static float xyz[ROWS * COLUMNS * 3];
static int64_t now_us(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}
static void sleep_until_us(int64_t us) { /* of the monotonic clock */
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
}
static int new_session(char *text, size_t size) { /* a random UUID: this run; a new one restarts seq */
    unsigned char r[16];
    FILE *source = fopen("/dev/urandom", "rb");
    if (!source || fread(r, 1, sizeof r, source) != sizeof r) return 0;
    fclose(source);
    r[6] = (r[6] & 0x0f) | 0x40;
    r[8] = (r[8] & 0x3f) | 0x80;
    snprintf(text, size, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", r[0], r[1], r[2], r[3],
             r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13], r[14], r[15]);
    return 1;
}
static const char *find(const char *json, const char *name) { /* "" where it is absent */
    const char *at = strstr(json, name);
    return at ? at + strlen(name) + strspn(at + strlen(name), ": ") : "";
}
static void next_trigger(void *sub, char *json, int size, char *part_id) { /* its text is copied as in the JSON */
    int nbytes = -1;
    while (nbytes < 0 || nbytes >= size)
        if (zmq_recv(sub, json, (size_t)size, 0) >= 0) nbytes = zmq_recv(sub, json, (size_t)size, 0);
    json[nbytes] = 0;
    for (const char *at = find(json, "\"part_id\""); *at && at[1] && at[1] != '"'; *part_id++ = *++at)
        if (at[1] == '\\') *part_id++ = *++at;
    *part_id = 0;
}
int main(int argc, char **argv) {
    const char *frames = argc > 1 ? argv[1] : "tcp://127.0.0.1:5560", *camera = argc > 2 ? argv[2] : "cam1";
    int count = argc > 3 ? atoi(argv[3]) : 10, sent = 0;
    double rate = argc > 4 ? atof(argv[4]) : 5;
    const char *results = argc > 5 ? argv[5] : "", *station = argc > 6 ? argv[6] : "st1";
    char session[37], topic[64], header[4096], trigger[1025] = "", part_id[1025];
    if (rate <= 0 || !new_session(session, sizeof session)) return fprintf(stderr, "no rate, or no random numbers\n"), 1;
    void *context = zmq_ctx_new(), *push = zmq_socket(context, ZMQ_PUSH), *sub = zmq_socket(context, ZMQ_SUB);
    int one = 1, linger_ms = 5000;
    zmq_setsockopt(push, ZMQ_IMMEDIATE, &one, sizeof one); /* queue nothing for a station that is not connected */
    zmq_setsockopt(push, ZMQ_SNDHWM, &one, sizeof one);    /* and at most one frame for a station that does not read */
    zmq_setsockopt(push, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    if (zmq_connect(push, frames)) return fprintf(stderr, "%s: %s\n", frames, zmq_strerror(zmq_errno())), 1;
    snprintf(topic, sizeof topic, "trigger/%s/", station);
    zmq_setsockopt(sub, ZMQ_SUBSCRIBE, topic, strlen(topic));
    if (*results && zmq_connect(sub, results)) return fprintf(stderr, "%s: %s\n", results, zmq_strerror(zmq_errno())), 1;
    zmq_pollitem_t item = {push, 0, ZMQ_POLLOUT, 0};
    zmq_poll(&item, 1, 30000);
    for (int n = 0; n < ROWS * COLUMNS; n++) {
        xyz[3 * n] = (float)(n % COLUMNS) - COLUMNS / 2.0f;
        xyz[3 * n + 1] = (float)(n / COLUMNS) - ROWS / 2.0f;
        xyz[3 * n + 2] = 500.0f;
    }
    snprintf(topic, sizeof topic, "frame/%s/", camera);
    int64_t started_us = now_us(CLOCK_MONOTONIC);
    for (int seq = 1; seq <= count; seq++) {
        snprintf(part_id, sizeof part_id, "P%d", seq);
        if (!*results) sleep_until_us(started_us + (int64_t)((seq - 1) * 1e6 / rate)); /* free run */
        else next_trigger(sub, trigger, sizeof trigger - 1, part_id), zmq_poll(&item, 1, 200); /* the one before */
        int64_t exposed_us = now_us(CLOCK_REALTIME);
        for (unsigned n = 0; n < sizeof rgb; n++) rgb[n] = (unsigned char)(seq * 7 + n * 13); /* no two pictures alike */
        int nbytes = snprintf(header, sizeof header,
            "{\"v\": %u, \"camera\": \"%s\", \"camera_session\": \"%s\", \"seq\": %d, "
            "\"trigger_id\": %llu, \"promise\": %llu, \"part_id\": \"%s\", " /* copied: which trigger it answers; 0: none */
            "\"t_exposure_us\": %" PRId64 ", \"t_sent_us\": %" PRId64 ", \"clock\": \"realtime\", \"streams\": ["
            "{\"name\": \"rgb\", \"dtype\": \"u1\", \"shape\": [%d, %d, 3], \"buffer\": 0, \"nbytes\": %zu}, "
            "{\"name\": \"xyz\", \"dtype\": \"f4\", \"shape\": [%d, %d, 3], \"buffer\": 1, \"nbytes\": %zu, \"unit\": \"mm\"}]}",
            ASPERITY_WIRE_VERSION, camera, session, seq, strtoull(find(trigger, "\"trigger_id\""), NULL, 10),
            strtoull(find(trigger, "\"promise\""), NULL, 10), part_id, exposed_us, now_us(CLOCK_REALTIME), ROWS, COLUMNS, sizeof rgb,
            ROWS, COLUMNS, sizeof xyz);
        /* Do not wait: while the previous frame is being sent, this one is lost, as its seq will show. */
        if (zmq_send(push, topic, strlen(topic), ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) continue;
        zmq_send(push, header, (size_t)nbytes, ZMQ_SNDMORE);
        zmq_send(push, rgb, sizeof rgb, ZMQ_SNDMORE);
        zmq_send(push, xyz, sizeof xyz, 0);
        sent++;
    }
    printf("{\"camera_session\": \"%s\", \"exposures\": %d, \"sent\": %d}\n", session, count, sent);
    zmq_close(push), zmq_close(sub);
    zmq_ctx_term(context);
    return 0;
}
