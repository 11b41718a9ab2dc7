/* plumews_kernels.utf8 for any kind of vector that can look up bytes in a table of sixteen.
 *
 * After Keiser and Lemire, "Validating UTF-8 in less than one instruction per byte" (2021): the two high nibbles and
 * one low nibble of each pair of neighbouring bytes choose three sets of faults, and a fault that is in all three is
 * one of the pair. Whether a third or a fourth byte is due is seen from what stands two and three places before. What
 * stands before is loaded again rather than carried along: then blocks may overlap, and the last one ends at the end.
 */

/* Faults of a pair. The last is none: two continuations are right where a third or fourth byte is due. */
enum {
    TOO_SHORT = 1 << 0,  /* a lead without its continuation */
    TOO_LONG = 1 << 1,   /* a continuation after ASCII */
    OVERLONG_3 = 1 << 2, /* E0, then below A0 */
    TOO_LARGE = 1 << 3,  /* F4, then above 8F; or a lead above it, then above 8F */
    SURROGATE = 1 << 4,  /* ED, then above 9F */
    OVERLONG_2 = 1 << 5, /* C0 or C1 */
    OVERLONG_4 = 1 << 6, /* F0, then below 90 */
    BEYOND = 1 << 6,     /* a lead above F4, then below 90: on the same second bytes as OVERLONG_4 */
    TWO_CONTS = 1 << 7,
    ANY_LOW = TOO_SHORT | TOO_LONG | TWO_CONTS, /* faults that the low nibble has no say in */
};

static const uint8_t NAME(first_high)[16] = {
    TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, /* ASCII */
    TWO_CONTS, TWO_CONTS, TWO_CONTS, TWO_CONTS, /* a continuation */
    TOO_SHORT | OVERLONG_2, /* C */
    TOO_SHORT, /* D */
    TOO_SHORT | OVERLONG_3 | SURROGATE, /* E */
    TOO_SHORT | OVERLONG_4 | TOO_LARGE | BEYOND, /* F */
};
static const uint8_t NAME(first_low)[16] = {
    ANY_LOW | OVERLONG_2 | OVERLONG_3 | OVERLONG_4, /* C0, E0, F0 */
    ANY_LOW | OVERLONG_2, /* C1 */
    ANY_LOW,
    ANY_LOW,
    ANY_LOW | TOO_LARGE, /* F4 */
    ANY_LOW | TOO_LARGE | BEYOND,
    ANY_LOW | TOO_LARGE | BEYOND,
    ANY_LOW | TOO_LARGE | BEYOND,
    ANY_LOW | TOO_LARGE | BEYOND,
    ANY_LOW | TOO_LARGE | BEYOND,
    ANY_LOW | TOO_LARGE | BEYOND,
    ANY_LOW | TOO_LARGE | BEYOND,
    ANY_LOW | TOO_LARGE | BEYOND,
    ANY_LOW | TOO_LARGE | BEYOND | SURROGATE, /* ED */
    ANY_LOW | TOO_LARGE | BEYOND,
    ANY_LOW | TOO_LARGE | BEYOND,
};
static const uint8_t NAME(second_high)[16] = {
    TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, /* ASCII */
    TOO_LONG | TWO_CONTS | OVERLONG_2 | OVERLONG_3 | OVERLONG_4 | BEYOND, /* 80 to 8F */
    TOO_LONG | TWO_CONTS | OVERLONG_2 | OVERLONG_3 | TOO_LARGE, /* 90 to 9F */
    TOO_LONG | TWO_CONTS | OVERLONG_2 | SURROGATE | TOO_LARGE, /* A0 to AF */
    TOO_LONG | TWO_CONTS | OVERLONG_2 | SURROGATE | TOO_LARGE, /* B0 to BF */
    TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, /* a lead */
};

/* Not zero where a byte of `now`, which lies at `at`, cannot stand after the three bytes before it. */
TARGET static inline VECTOR NAME(faults)(const uint8_t *at, VECTOR now, VECTOR fh, VECTOR fl, VECTOR sh)
{
    VECTOR before = LOAD(at - 1);
    PLUMEWS_KEEP(before);
    VECTOR pair = AND(AND(LOOKUP(fh, HIGH_NIBBLES(before)), LOOKUP(fl, LOW_NIBBLES(before))),
                      LOOKUP(sh, HIGH_NIBBLES(now)));
    VECTOR third = SUBTRACT_OR_0(LOAD(at - 2), BYTES(0xE0 - 0x80)); /* high bit: a lead of three or four bytes */
    VECTOR fourth = SUBTRACT_OR_0(LOAD(at - 3), BYTES(0xF0 - 0x80)); /* high bit: a lead of four */
    return XOR(AND(OR(third, fourth), BYTES(0x80)), pair);
}

/* The same for the first vector, which has nothing before it. */
TARGET static VECTOR NAME(first_faults)(VECTOR now, VECTOR fh, VECTOR fl, VECTOR sh)
{
    uint8_t room[16 + WIDTH] = {0};
    STORE(room + 16, now);
    return NAME(faults)(room + 16, now, fh, fl, sh);
}

TARGET static size_t NAME(utf8)(const uint8_t *data, size_t size)
{
    if (size < WIDTH)
        return UTF8_BELOW_WIDTH(data, size);
    VECTOR fh = TABLE(NAME(first_high)), fl = TABLE(NAME(first_low)), sh = TABLE(NAME(second_high));
    VECTOR first = LOAD(data);
    int all_ascii = !ANY_HIGH(first); /* so far: then nothing is unfinished before a block */
    if (!all_ascii && ANY(NAME(first_faults)(first, fh, fl, sh)))
        return 0;
    size_t at = WIDTH;
    for (; size - at >= 4 * WIDTH; at += 4 * WIDTH) {
        VECTOR a = LOAD(data + at), b = LOAD(data + at + WIDTH);
        VECTOR c = LOAD(data + at + 2 * WIDTH), d = LOAD(data + at + 3 * WIDTH);
        if (!ANY_HIGH(OR(OR(a, b), OR(c, d)))) {
            if (!all_ascii && plumews_boundary(data, at) != at)
                return plumews_boundary(data, at);
            continue;
        }
        VECTOR found = NAME(faults)(data + at, a, fh, fl, sh);
        PLUMEWS_KEEP(found);
        found = OR(found, NAME(faults)(data + at + WIDTH, b, fh, fl, sh));
        PLUMEWS_KEEP(found);
        found = OR(found, NAME(faults)(data + at + 2 * WIDTH, c, fh, fl, sh));
        PLUMEWS_KEEP(found);
        found = OR(found, NAME(faults)(data + at + 3 * WIDTH, d, fh, fl, sh));
        if (ANY(found))
            return plumews_boundary(data, at);
        all_ascii = 0;
    }
    while (at < size) { /* the last vector ends where the data does: it may begin inside the one before */
        size_t start = size - at >= WIDTH ? at : size - WIDTH;
        if (start < 3)
            return plumews_boundary(data, at);
        VECTOR now = LOAD(data + start);
        if (!all_ascii || ANY_HIGH(now)) {
            if (ANY(NAME(faults)(data + start, now, fh, fl, sh)))
                return plumews_boundary(data, at);
            all_ascii = 0;
        }
        at = start + WIDTH;
    }
    return plumews_boundary(data, size);
}
