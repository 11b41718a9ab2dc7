/* The kernels without any special instruction: words of eight bytes, and characters one by one. */
#include "kernels.h"

int plumews_mask_portable(uint8_t *out, const uint8_t *data, size_t size, uint32_t key)
{
    if (size < 16)
        return plumews_mask_short(out, data, size, key);
    uint64_t wide = (uint64_t)key << 32 | key, seen = 0;
    size_t at = 0;
    for (; size - at >= 32; at += 32) {
        uint64_t a = plumews_load8(data + at) ^ wide;
        uint64_t b = plumews_load8(data + at + 8) ^ wide;
        uint64_t c = plumews_load8(data + at + 16) ^ wide;
        uint64_t d = plumews_load8(data + at + 24) ^ wide;
        memcpy(out + at, &a, 8);
        memcpy(out + at + 8, &b, 8);
        memcpy(out + at + 16, &c, 8);
        memcpy(out + at + 24, &d, 8);
        seen |= a | b | c | d;
    }
    for (; size - at >= 8; at += 8) {
        uint64_t a = plumews_load8(data + at) ^ wide;
        memcpy(out + at, &a, 8);
        seen |= a;
    }
    return plumews_mask_short(out + at, data + at, size - at, key) | ((seen & PLUMEWS_HIGH_BITS) != 0);
}

/* Only ASCII is skipped here: for the rest the automaton is as good as anything in C. */
size_t plumews_utf8_portable(const uint8_t *data, size_t size)
{
    size_t at = 0;
    while (size - at >= 16 && !((plumews_load8(data + at) | plumews_load8(data + at + 8)) & PLUMEWS_HIGH_BITS))
        at += 16;
    return at;
}

size_t plumews_census_portable(const uint8_t *data, size_t size, uint8_t *highest)
{
    size_t count = 0;
    uint8_t most = *highest;
    for (size_t i = 0; i < size; i++) {
        count += (data[i] & 0xC0) != 0x80;
        if (data[i] > most)
            most = data[i];
    }
    *highest = most;
    return count;
}

/* One character at `data`: its code point, and `data` moved behind it. */
static inline uint32_t character(const uint8_t **data)
{
    const uint8_t *at = *data;
    if (at[0] < 0x80) {
        *data += 1;
        return at[0];
    }
    if (at[0] < 0xE0) {
        *data += 2;
        return (at[0] & 0x1Fu) << 6 | (at[1] & 0x3Fu);
    }
    if (at[0] < 0xF0) {
        *data += 3;
        return (at[0] & 0x0Fu) << 12 | (at[1] & 0x3Fu) << 6 | (at[2] & 0x3Fu);
    }
    *data += 4;
    return (at[0] & 0x07u) << 18 | (at[1] & 0x3Fu) << 12 | (at[2] & 0x3Fu) << 6 | (at[3] & 0x3Fu);
}

size_t plumews_widen_portable(void *out, int width, size_t room, const uint8_t *data, size_t size)
{
    const uint8_t *end = data + size;
    size_t at = 0;
    (void)room;
    if (width == 1)
        for (uint8_t *to = out; data < end;)
            to[at++] = (uint8_t)character(&data);
    else if (width == 2)
        for (uint16_t *to = out; data < end;)
            to[at++] = (uint16_t)character(&data);
    else
        for (uint32_t *to = out; data < end;)
            to[at++] = character(&data);
    return at;
}

const plumews_kernels plumews_portable = {
    "portable", plumews_mask_portable, plumews_utf8_portable, plumews_census_portable, plumews_widen_portable,
};
