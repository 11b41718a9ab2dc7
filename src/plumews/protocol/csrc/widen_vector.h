/* plumews_kernels.widen for vectors of sixteen bytes that can be shuffled.
 *
 * For 64 bytes at once a bit says of each byte whether a character ends there. From where the next character begins,
 * those bits name what is done: runs of one length have paths of their own; else the next twelve bits choose, from a
 * table, the shuffle that brings the bytes of the next characters into lanes, last byte first, where masks and shifts
 * put their bits together. Whole vectors are stored, so the last sixteen code points are left to the plain kernel.
 */

/* The lanes of 16 bits, or 32, hold each a character; their bits, put together. */
TARGET static inline VECTOR NAME(two_bytes)(VECTOR lanes)
{
    return OR(AND(lanes, HALVES(0x7F)), SHIFT_HALVES_RIGHT(AND(lanes, HALVES(0x1F00)), 2));
}

TARGET static inline VECTOR NAME(three_bytes)(VECTOR lanes)
{
    return OR(OR(AND(lanes, WORDS(0x7F)), SHIFT_WORDS_RIGHT(AND(lanes, WORDS(0x3F00)), 2)),
              SHIFT_WORDS_RIGHT(AND(lanes, WORDS(0x0F0000)), 4));
}

TARGET static inline VECTOR NAME(four_bytes)(VECTOR lanes)
{
    VECTOR third = AND(lanes, WORDS(0x3F0000)); /* the lead of a character of three bytes has a bit too much */
    third = XOR(third, SHIFT_WORDS_RIGHT(AND(lanes, WORDS(0x400000)), 1));
    return OR(OR(AND(lanes, WORDS(0x7F)), SHIFT_WORDS_RIGHT(AND(lanes, WORDS(0x3F00)), 2)),
              OR(SHIFT_WORDS_RIGHT(third, 4), SHIFT_WORDS_RIGHT(AND(lanes, WORDS(0x07000000)), 6)));
}

/* Eight code points of 16 bits, or four of 32, to where those of `width` are wanted. */
TARGET static inline void NAME(put_halves)(uint8_t *to, int width, VECTOR points)
{
    if (width == 2) {
        STORE(to, points);
    } else if (width == 1) {
        STORE_HALF(to, SHUFFLE(points, TABLE(plumews_even_bytes)));
    } else {
        STORE(to, LOW_HALVES_TO_WORDS(points));
        STORE(to + 16, HIGH_HALVES_TO_WORDS(points));
    }
}

/* Sixteen ASCII characters to where those of `width` are wanted. */
TARGET static inline void NAME(put_bytes)(uint8_t *to, int width, VECTOR points)
{
    if (width == 1) {
        STORE(to, points);
    } else {
        NAME(put_halves)(to, width, LOW_BYTES_TO_HALVES(points));
        NAME(put_halves)(to + 8 * width, width, HIGH_BYTES_TO_HALVES(points));
    }
}

TARGET static inline void NAME(put_words)(uint8_t *to, int width, VECTOR points)
{
    if (width == 4)
        STORE(to, points);
    else
        STORE_HALF(to, SHUFFLE(points, TABLE(plumews_even_halves)));
}

TARGET static PLUMEWS_INLINE size_t NAME(widen_to)(uint8_t *out, int width, size_t room, const uint8_t *data,
                                                   size_t size)
{
    size_t at = 0, done = 0;
    while (size - at > 64 && room - done >= 64) {
        const uint8_t *from = data + at;
        uint8_t *to = out + done * (size_t)width;
        uint64_t ends = STARTS(from + 1) | (uint64_t)STARTS(from + 17) << 16 | (uint64_t)STARTS(from + 33) << 32
                        | (uint64_t)STARTS(from + 49) << 48;
        if (ends == UINT64_MAX) {
            for (int i = 0; i < 64; i += 16)
                NAME(put_bytes)(to + i * width, width, LOAD(from + i));
            at += 64, done += 64;
        } else if (ends == UINT64_C(0xAAAAAAAAAAAAAAAA)) {
            for (int i = 0; i < 64; i += 16)
                NAME(put_halves)(to + i / 2 * width, width,
                                 NAME(two_bytes)(SHUFFLE(LOAD(from + i), TABLE(plumews_pairs))));
            at += 64, done += 32;
        } else if ((ends & UINT64_C(0xFFFFFFFFFFFF)) == UINT64_C(0x924924924924) && width > 1) {
            for (int i = 0; i < 48; i += 12)
                NAME(put_words)(to + i / 3 * width, width,
                                NAME(three_bytes)(SHUFFLE(LOAD(from + i), TABLE(plumews_triples))));
            at += 48, done += 16;
        } else if (ends == UINT64_C(0x8888888888888888) && width > 2) {
            for (int i = 0; i < 64; i += 16)
                NAME(put_words)(to + i / 4 * width, width,
                                NAME(four_bytes)(SHUFFLE(LOAD(from + i), TABLE(plumews_quadruples))));
            at += 64, done += 16;
        } else {
            size_t used = 0, count = 0;
            while (used <= 48) {
                VECTOR now = LOAD(from + used);
                uint8_t *here = to + count * (size_t)width;
                if ((ends & 0xFFFF) == 0xFFFF) {
                    NAME(put_bytes)(here, width, now);
                    ends >>= 16, used += 16, count += 16;
                    continue;
                }
                const plumews_lanes *lanes = &plumews_all_lanes[ends & 0xFFF];
                VECTOR spread = SHUFFLE(now, LOAD(plumews_shuffles[lanes->shuffle]));
                if (lanes->count == 6 || width == 1)
                    NAME(put_halves)(here, width, NAME(two_bytes)(spread));
                else if (lanes->count == 4 || width == 2)
                    NAME(put_words)(here, width, NAME(three_bytes)(spread));
                else
                    NAME(put_words)(here, width, NAME(four_bytes)(spread));
                ends >>= lanes->bytes, used += lanes->bytes, count += lanes->count;
            }
            at += used, done += count;
        }
    }
    return done + plumews_widen_portable(out + done * (size_t)width, width, room - done, data + at, size - at);
}

TARGET static size_t NAME(widen)(void *out, int width, size_t room, const uint8_t *data, size_t size)
{
    if (width == 1) /* each a loop of its own: the compiler knows the width in it */
        return NAME(widen_to)(out, 1, room, data, size);
    if (width == 2)
        return NAME(widen_to)(out, 2, room, data, size);
    return NAME(widen_to)(out, 4, room, data, size);
}
