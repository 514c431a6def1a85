/* A camera: sends COUNT frames of colour and points at RATE a second, one exposure one message.
 *
 *   cc -O2 -I../generated send.c -lzmq -o send && ./send [FRAMES] [CAMERA] [COUNT] [RATE]
 *
 * "seq" counts every exposure, also one that could not be sent: so the station names what is missing.
 * Little-endian machines. */
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

static void sleep_until_us(int64_t due_us) { /* of the monotonic clock */
    struct timespec t = {due_us / 1000000, due_us % 1000000 * 1000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static int new_session(char *text, size_t size) { /* a random UUID: this run; a new one starts seq anew */
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

int main(int argc, char **argv) {
    const char *frames = argc > 1 ? argv[1] : "tcp://127.0.0.1:5560", *camera = argc > 2 ? argv[2] : "cam1";
    int count = argc > 3 ? atoi(argv[3]) : 10, sent = 0;
    double rate = argc > 4 ? atof(argv[4]) : 5;
    char session[37], topic[64], header[1024];
    if (rate <= 0 || !new_session(session, sizeof session)) return fprintf(stderr, "no rate, or no random numbers\n"), 1;
    void *context = zmq_ctx_new(), *push = zmq_socket(context, ZMQ_PUSH);
    int one = 1, linger_ms = 5000;
    zmq_setsockopt(push, ZMQ_IMMEDIATE, &one, sizeof one); /* queue nothing for a station that is not there */
    zmq_setsockopt(push, ZMQ_SNDHWM, &one, sizeof one);    /* nor more than one frame for one that does not read */
    zmq_setsockopt(push, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    if (zmq_connect(push, frames)) return fprintf(stderr, "%s: %s\n", frames, zmq_strerror(zmq_errno())), 1;
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
        sleep_until_us(started_us + (int64_t)((seq - 1) * 1e6 / rate));
        int64_t exposed_us = now_us(CLOCK_REALTIME);
        for (unsigned n = 0; n < sizeof rgb; n++) rgb[n] = (unsigned char)(seq * 7 + n * 13); /* no two pictures alike */
        int nbytes = snprintf(header, sizeof header,
            "{\"v\": %u, \"camera\": \"%s\", \"camera_session\": \"%s\", \"seq\": %d, \"trigger_id\": 0, \"part_id\": \"P%d\", "
            "\"t_exposure_us\": %" PRId64 ", \"t_sent_us\": %" PRId64 ", \"clock\": \"realtime\", \"streams\": ["
            "{\"name\": \"rgb\", \"dtype\": \"u1\", \"shape\": [%d, %d, 3], \"buffer\": 0, \"nbytes\": %zu}, "
            "{\"name\": \"xyz\", \"dtype\": \"f4\", \"shape\": [%d, %d, 3], \"buffer\": 1, \"nbytes\": %zu, \"unit\": \"mm\"}]}",
            ASPERITY_WIRE_VERSION, camera, session, seq, seq, exposed_us, now_us(CLOCK_REALTIME), ROWS, COLUMNS, sizeof rgb,
            ROWS, COLUMNS, sizeof xyz);
        /* Now or never: while the frame before is under way this one is lost, and its seq says so. */
        if (zmq_send(push, topic, strlen(topic), ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) continue;
        zmq_send(push, header, (size_t)nbytes, ZMQ_SNDMORE);
        zmq_send(push, rgb, sizeof rgb, ZMQ_SNDMORE);
        zmq_send(push, xyz, sizeof xyz, 0);
        sent++;
    }
    printf("{\"camera_session\": \"%s\", \"exposures\": %d, \"sent\": %d}\n", session, count, sent);
    zmq_close(push);
    zmq_ctx_term(context);
    return 0;
}
