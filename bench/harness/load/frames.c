/* What is sent, and whether what comes back is that.
 *
 * Messages of several kinds are sent in turn, so that an echo of the wrong one shows; every byte is compared. Numbered
 * ones differ all, so that of a broadcast none can be lost, come twice or in the wrong order without being noticed.
 * A server may answer in fragments (RFC 6455 section 5.4); its pings and pongs are passed over. How a server compresses
 * is its own affair: see deflated.c for what is compared then. */
#include "load.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT = 0x1, BINARY = 0x2, CLOSE = 0x8, FIN = 0x80, RSV1 = 0x40 };

static uint64_t random_bits(void) {
    static uint64_t state = 0x9E3779B97F4A7C15u; /* the same bytes in every run */
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* A frame (section 5.2); its size. */
static size_t put_frame(uint8_t *out, const struct frames *frames, const uint8_t *payload, size_t size) {
    uint8_t key[4] = {0}, *at = out;
    uint64_t bits = random_bits();
    bool masked = frames->masked;
    if (masked)
        memcpy(key, &bits, 4);
    *at++ = FIN | (frames->answers ? RSV1 : 0) | frames->opcode;
    int bytes = size < 126 ? 0 : size < 65536 ? 2 : 8;
    *at++ = (uint8_t)((masked ? 0x80 : 0) | (bytes == 0 ? size : bytes == 2 ? 126 : 127));
    for (int left = bytes - 1; left >= 0; left--)
        *at++ = (uint8_t)((uint64_t)size >> (8 * left));
    if (masked) {
        memcpy(at, key, 4);
        at += 4;
    }
    for (size_t i = 0; i < size; i++)
        at[i] = payload[i] ^ key[i % 4];
    return (size_t)(at - out) + size;
}

void frames_build(struct frames *frames, const uint8_t *payloads, const size_t *sizes, size_t burst) {
    size_t count = frames->kinds + burst, room = 0, at = 0;
    for (size_t i = 0; i < count; i++)
        room += sizes[i % frames->kinds] + 14;
    frames->out = malloc(room);
    frames->starts = malloc((count + 1) * sizeof *frames->starts);
    if (frames->out == NULL || frames->starts == NULL)
        fail("no memory");
    for (size_t i = 0; i < count; i++) {
        uint8_t *frame = frames->out + at;
        size_t size;
        frames->starts[i] = at;
        if (i < frames->kinds) {
            size = put_frame(frame, frames, payloads, sizes[i]);
            payloads += sizes[i];
        } else {
            size_t first = i % frames->kinds;
            size = frames->starts[first + 1] - frames->starts[first];
            memcpy(frame, frames->out + frames->starts[first], size);
        }
        at += size;
        frames->stride = size > frames->stride ? size : frames->stride;
    }
    frames->starts[count] = at;
}

/* Frames of random payloads, which are returned. */
static uint8_t *make(struct frames *frames, unsigned kinds, size_t size, size_t burst) {
    uint8_t *payloads = malloc(kinds * size);
    size_t *sizes = malloc(kinds * sizeof *sizes);
    if (payloads == NULL || sizes == NULL)
        fail("no memory");
    for (size_t i = 0; i < kinds * size; i++)
        payloads[i] = (uint8_t)random_bits();
    for (unsigned i = 0; i < kinds; i++)
        sizes[i] = size;
    frames->opcode = BINARY;
    frames->kinds = kinds;
    frames->size = size;
    frames_build(frames, payloads, sizes, burst);
    free(sizes);
    return payloads;
}

void frames_make(struct frames *frames, size_t size, int in_flight, bool raw) {
    unsigned kinds = size >= 65536 ? 3 : 17; /* primes: no size of a burst always begins with the same */
    *frames = (struct frames){.what = "echo", .raw = raw, .masked = true};
    uint8_t *payloads = make(frames, kinds, size, (size_t)in_flight);
    frames->expected = raw ? frames->out : payloads;
    frames->expected_size = raw ? frames->stride : size;
}

void frames_make_numbered(struct frames *frames, unsigned kinds, size_t size, bool masked) {
    if (size < NUMBER_SIZE)
        fail("--size wants at least %d bytes", NUMBER_SIZE);
    *frames = (struct frames){.what = "delivery", .masked = masked, .numbered = true};
    frames->expected = make(frames, kinds, size, 0);
    frames->expected_size = size;
}

void frames_make_deflated(struct frames *frames, const struct options *options, const char *what) {
    size_t *sizes;
    *frames = (struct frames){.what = what, .masked = true, .opcode = TEXT, .size = MOST_ANSWER};
    uint8_t *payloads = deflated_read(options->messages, &frames->kinds, &sizes);
    frames->answers = answers_new(frames->kinds);
    frames_build(frames, payloads, sizes, (size_t)options->in_flight);
    free(sizes);
    free(payloads);
}

size_t frames_span(const struct frames *frames, unsigned kind, unsigned count) {
    return frames->starts[kind + count] - frames->starts[kind];
}

/* Write its number into message `number`, in the place of an older one. */
static void put_number(struct frames *frames, uint64_t number) {
    size_t kind = number % frames->kinds;
    uint8_t *payload = frames->out + frames->starts[kind + 1] - frames->size;
    for (unsigned i = 0; i < NUMBER_SIZE; i++) {
        uint8_t byte = (uint8_t)(number >> (8 * (NUMBER_SIZE - 1 - i)));
        frames->expected[kind * frames->size + i] = byte;
        payload[i] = frames->masked ? byte ^ payload[(int)(i % 4) - 4] : byte; /* the key is before it */
    }
}

size_t frames_put(struct frames *frames, uint64_t number, uint8_t *into) {
    unsigned kind = (unsigned)(number % frames->kinds);
    size_t size = frames_span(frames, kind, 1);
    if (frames->numbered)
        put_number(frames, number);
    memcpy(into, frames->out + frames->starts[kind], size);
    return size;
}

bool frames_join(const struct frames *frames, struct reading *reading, const uint8_t *data, size_t size) {
    size_t head = frames->size < 126 ? 2 : frames->size < 65536 ? 4 : 10;
    if (size < head + NUMBER_SIZE)
        return false;
    *reading = (struct reading){0};
    for (unsigned i = 0; i < NUMBER_SIZE; i++)
        reading->message = reading->message << 8 | data[head + i];
    reading->kind = (unsigned)(reading->message % frames->kinds);
    return true;
}

/* What differs, where `data` is not what was due: says so and ends. */
static _Noreturn void fail_at(const struct frames *frames, const struct reading *reading, const uint8_t *data,
                              const uint8_t *expected) {
    size_t at = reading->at;
    while (*data == *expected)
        data++, expected++, at++;
    if (frames->numbered && at < NUMBER_SIZE)
        fail("wrong %s: another one where number %llu was due: lost, twice or out of order", frames->what,
             (unsigned long long)reading->message);
    fail("wrong %s: the bytes of message %llu are others", frames->what, (unsigned long long)reading->message);
}

/* Take bytes of a header; how many were used. `in_frame` when it is complete. */
static size_t take_head(const struct frames *frames, struct reading *reading, const uint8_t *data, size_t size) {
    size_t used = 0;
    for (;;) {
        unsigned need = 2;
        if (reading->head_size >= 2)
            need = (reading->head[1] & 127) < 126 ? 2 : (reading->head[1] & 127) == 126 ? 4 : 10;
        if (reading->head_size == need)
            break;
        if (used == size)
            return used;
        reading->head[reading->head_size++] = data[used++];
    }
    uint8_t opcode = reading->head[0] & 15;
    uint8_t reserved = frames->answers != NULL && opcode < 8 && reading->at == 0 && opcode != 0 ? RSV1 : 0;
    if (reserved != 0 && (reading->head[0] & 0x70) == 0)
        fail("wrong %s: message %llu is not compressed", frames->what, (unsigned long long)reading->message);
    if (reading->head[1] & 128 || (reading->head[0] & 0x70) != reserved)
        fail("wrong %s: a frame that is masked or has reserved bits, message %llu", frames->what,
             (unsigned long long)reading->message);
    if (opcode == CLOSE)
        fail("the server has closed the WebSocket at message %llu", (unsigned long long)reading->message);
    reading->left = reading->head[1] & 127;
    if (reading->left >= 126) {
        reading->left = 0;
        for (unsigned i = 2; i < reading->head_size; i++)
            reading->left = reading->left << 8 | reading->head[i];
    }
    if (opcode < 8) {
        if (opcode != (reading->at == 0 ? frames->opcode : 0) || reading->left > frames->size - reading->at)
            fail("wrong %s: opcode %d and %llu bytes, message %llu", frames->what, opcode,
                 (unsigned long long)reading->left, (unsigned long long)reading->message);
        reading->last = reading->head[0] & 0x80;
    }
    reading->in_frame = true;
    return used;
}

unsigned frames_check(const struct frames *frames, struct reading *reading, const uint8_t *data, size_t size) {
    unsigned complete = 0;
    size_t at = 0;
    while (at < size) {
        if (!reading->in_frame) {
            if (frames->raw) {
                reading->left = frames->expected_size;
                reading->in_frame = reading->last = true;
            } else {
                at += take_head(frames, reading, data + at, size - at);
                if (!reading->in_frame)
                    break;
            }
        }
        size_t part = size - at < reading->left ? size - at : (size_t)reading->left;
        bool control = !frames->raw && (reading->head[0] & 8);
        if (!control && frames->answers != NULL) {
            answers_part(reading, data + at, part);
        } else if (!control) {
            const uint8_t *expected = frames->expected + reading->kind * frames->expected_size + reading->at;
            if (memcmp(data + at, expected, part) != 0)
                fail_at(frames, reading, data + at, expected);
        }
        if (!control)
            reading->at += part;
        at += part;
        reading->left -= part;
        if (reading->left != 0)
            continue;
        reading->in_frame = false;
        reading->head_size = 0;
        if (control || !reading->last)
            continue;
        if (frames->answers != NULL)
            answers_complete(frames, reading);
        else if (reading->at != frames->expected_size)
            fail("wrong %s: %zu bytes, message %llu", frames->what, reading->at, (unsigned long long)reading->message);
        reading->at = 0;
        reading->message++;
        reading->kind = reading->kind + 1 == frames->kinds ? 0 : reading->kind + 1;
        complete++;
    }
    return complete;
}
