/* UTF-8 that arrives in pieces, under masks, and as code points (RFC 6455 section 8.1, RFC 3629).
 *
 * The automaton is the judge: it knows the first byte that cannot stand where it stands. A tier's kernel only says up
 * to where it need not be asked. What is masked is made clear a block at a time, in the cache, so that a text needs
 * no second copy of itself.
 */
#include "kernels.h"

/* An automaton whose states are shifts: STEPS[byte] holds, six bits each, the state that follows each state. */
enum {
    BAD = PLUMEWS_BAD, /* and stays so */
    DONE = PLUMEWS_DONE,
    NEED1 = 12, /* inside a character: this many more bytes */
    NEED2 = 18,
    NEED3 = 24,
    AFTER_E0 = 30, /* inside one: the next byte has a narrower range (RFC 3629 section 4) */
    AFTER_ED = 36,
    AFTER_F0 = 42,
    AFTER_F4 = 48
};

#define TO(state, then) ((uint64_t)(then) << (state))
#define ASCII TO(DONE, DONE)
#define CONT TO(NEED1, DONE) | TO(NEED2, NEED1) | TO(NEED3, NEED2)
#define CONT_8 CONT | TO(AFTER_ED, NEED1) | TO(AFTER_F4, NEED2) /* 80 to 8F: E0 and F0 would be overlong */
#define CONT_9 CONT | TO(AFTER_ED, NEED1) | TO(AFTER_F0, NEED2) /* 90 to 9F: F4 would be beyond U+10FFFF */
#define CONT_AB CONT | TO(AFTER_E0, NEED1) | TO(AFTER_F0, NEED2) /* A0 to BF: ED would be a surrogate */
#define TWICE(x) x, x
#define TIMES4(x) TWICE(x), TWICE(x)
#define TIMES16(x) TIMES4(x), TIMES4(x), TIMES4(x), TIMES4(x)

static const uint64_t STEPS[256] = {
    TIMES16(ASCII), TIMES16(ASCII), TIMES16(ASCII), TIMES16(ASCII),
    TIMES16(ASCII), TIMES16(ASCII), TIMES16(ASCII), TIMES16(ASCII),
    TIMES16(CONT_8), TIMES16(CONT_9), TIMES16(CONT_AB), TIMES16(CONT_AB),
    TWICE(0), TWICE(TO(DONE, NEED1)), TIMES4(TO(DONE, NEED1)), TIMES4(TO(DONE, NEED1)), TIMES4(TO(DONE, NEED1)), /* C */
    TIMES16(TO(DONE, NEED1)), /* D */
    TO(DONE, AFTER_E0), TIMES4(TO(DONE, NEED2)), TIMES4(TO(DONE, NEED2)), TIMES4(TO(DONE, NEED2)), TO(DONE, AFTER_ED),
    TWICE(TO(DONE, NEED2)), /* EE, EF */
    TO(DONE, AFTER_F0), TO(DONE, NEED3), TWICE(TO(DONE, NEED3)), TO(DONE, AFTER_F4), /* F0 to F4 */
    0, TWICE(0), TIMES4(0), TIMES4(0)
};

/* What is cleared of its mask at once: a multiple of 4, and small beside the cache. */
enum { BLOCK = 4096, CARRY = 4 };

size_t plumews_scan(const uint8_t *data, size_t size, int *state)
{
    size_t at = 0;
    uint64_t now = (uint64_t)*state; /* in its low six bits */
    for (; (now & 63) != DONE && at < size; at++) { /* to the end of a character that was begun */
        now = STEPS[data[at]] >> (now & 63);
        if ((now & 63) == BAD)
            goto bad;
    }
    while (at < size) {
        if ((now & 63) == DONE && size - at >= 16)
            at += plumews_now->utf8(data + at, size - at);
        uint64_t before = now;
        size_t start = at, stop = size - at > 32 ? at + 32 : size;
        for (; at < stop; at++) /* without a question at each byte: a fault stays one */
            now = STEPS[data[at]] >> (now & 63);
        if ((now & 63) == BAD) {
            for (at = start, now = before; (now = STEPS[data[at]] >> (now & 63) & 63) != BAD;)
                at++;
            goto bad;
        }
    }
    *state = (int)(now & 63);
    return size;
bad:
    *state = BAD;
    return at;
}

size_t plumews_mask_scan(uint8_t *out, const uint8_t *data, size_t size, uint32_t key, int *state, int *ascii)
{
    for (size_t at = 0; at < size; at += BLOCK) {
        size_t take = size - at < BLOCK ? size - at : BLOCK;
        if (plumews_now->mask(out + at, data + at, take, key))
            *ascii = 0;
        else if (*state == DONE)
            continue;
        size_t good = plumews_scan(out + at, take, state);
        if (good < take)
            return at + good;
    }
    return size;
}

size_t plumews_survey(const uint8_t *data, size_t size, uint32_t key, int *state, size_t *count, uint8_t *highest)
{
    uint8_t room[BLOCK];
    for (size_t at = 0; at < size; at += BLOCK) {
        size_t take = size - at < BLOCK ? size - at : BLOCK;
        const uint8_t *clear = data + at;
        if (key) {
            plumews_now->mask(room, clear, take, key);
            clear = room;
        }
        size_t good = plumews_scan(clear, take, state);
        if (good < take)
            return at + good;
        *count += plumews_now->census(clear, take, highest);
    }
    return size;
}

void plumews_decode(void *out, int width, size_t room, const uint8_t *data, size_t size, uint32_t key)
{
    if (!key) {
        plumews_now->widen(out, width, room, data, size);
        return;
    }
    uint8_t clear[CARRY + BLOCK];
    size_t carried = 0; /* bytes of a character that a block has cut */
    for (size_t at = 0; at < size; at += BLOCK) {
        size_t take = size - at < BLOCK ? size - at : BLOCK;
        plumews_now->mask(clear + carried, data + at, take, key);
        size_t whole = plumews_boundary(clear, carried + take);
        size_t done = plumews_now->widen(out, width, room, clear, whole);
        out = (uint8_t *)out + done * (size_t)width;
        room -= done;
        carried += take - whole;
        memcpy(clear, clear + whole, carried);
    }
}
