/* What is sent, and whether what comes back is that.
 *
 * Messages of several kinds are sent in turn, so that an echo of the wrong one shows; every byte is compared.
 * A server may answer in fragments (RFC 6455 section 5.4); its pings and pongs are passed over. */
#include "load.h"

#include <stdlib.h>
#include <string.h>

enum { BINARY = 0x2, CLOSE = 0x8 };

static uint64_t random_bits(void) {
    static uint64_t state = 0x9E3779B97F4A7C15u; /* the same bytes in every run */
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* A masked frame (section 5.2); its size. */
static size_t put_frame(uint8_t *out, const uint8_t *payload, size_t size) {
    uint8_t key[4], *at = out;
    uint64_t bits = random_bits();
    memcpy(key, &bits, 4);
    *at++ = 0x80 | BINARY;
    int bytes = size < 126 ? 0 : size < 65536 ? 2 : 8;
    *at++ = (uint8_t)(0x80 | (bytes == 0 ? size : bytes == 2 ? 126 : 127));
    for (int left = bytes - 1; left >= 0; left--)
        *at++ = (uint8_t)((uint64_t)size >> (8 * left));
    memcpy(at, key, 4);
    at += 4;
    for (size_t i = 0; i < size; i++)
        at[i] = payload[i] ^ key[i % 4];
    return (size_t)(at - out) + size;
}

void frames_make(struct frames *frames, size_t size, int in_flight, bool raw) {
    unsigned kinds = size >= 65536 ? 3 : 17; /* primes: no size of a burst always begins with the same */
    uint8_t *payloads = malloc(kinds * size), *first = malloc(size + 14);
    if (payloads == NULL || first == NULL)
        fail("no memory");
    for (size_t i = 0; i < kinds * size; i++)
        payloads[i] = (uint8_t)random_bits();
    frames->stride = put_frame(first, payloads, size);
    free(first);
    size_t count = kinds + (size_t)in_flight;
    frames->out = malloc(count * frames->stride);
    if (frames->out == NULL)
        fail("no memory");
    for (size_t i = 0; i < count; i++) {
        if (i < kinds)
            put_frame(frames->out + i * frames->stride, payloads + i * size, size);
        else
            memcpy(frames->out + i * frames->stride, frames->out + (i - kinds) * frames->stride, frames->stride);
    }
    frames->raw = raw;
    frames->kinds = kinds;
    frames->size = size;
    frames->expected = raw ? frames->out : payloads;
    frames->expected_size = raw ? frames->stride : size;
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
    if (reading->head[1] & 128 || reading->head[0] & 0x70)
        fail("wrong echo: a frame that is masked or has reserved bits, message %llu",
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
        if (opcode != (reading->at == 0 ? BINARY : 0) || reading->left > frames->size - reading->at)
            fail("wrong echo: opcode %d and %llu bytes, message %llu", opcode, (unsigned long long)reading->left,
                 (unsigned long long)reading->message);
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
        if (!control) {
            if (memcmp(data + at, frames->expected + reading->kind * frames->expected_size + reading->at, part) != 0)
                fail("wrong echo: the bytes of message %llu are others", (unsigned long long)reading->message);
            reading->at += part;
        }
        at += part;
        reading->left -= part;
        if (reading->left != 0)
            continue;
        reading->in_frame = false;
        reading->head_size = 0;
        if (control || !reading->last)
            continue;
        if (reading->at != frames->expected_size)
            fail("wrong echo: %zu bytes, message %llu", reading->at, (unsigned long long)reading->message);
        reading->at = 0;
        reading->message++;
        reading->kind = reading->kind + 1 == frames->kinds ? 0 : reading->kind + 1;
        complete++;
    }
    return complete;
}
