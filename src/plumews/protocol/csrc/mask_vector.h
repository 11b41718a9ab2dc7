/* plumews_kernels.mask for any kind of vector; a tier includes this after it has said what its vectors can do.
 *
 * The first and the last vector are loaded before anything is stored and stored after everything else: they overlap
 * what lies between, so that there is no loop over single bytes at either end and the stores between are aligned.
 * Four vectors a turn, by hand: the speed of a plain loop depends on where the compiler puts it.
 */
TARGET static int NAME(mask)(uint8_t *out, const uint8_t *data, size_t size, uint32_t key)
{
    if (size < WIDTH)
        return MASK_BELOW_WIDTH(out, data, size, key);
    VECTOR first = XOR(LOAD(data), WORDS(key));
    VECTOR last = XOR(LOAD(data + size - WIDTH), WORDS(plumews_rotated(key, size)));
    VECTOR seen = OR(first, last);
    if (size > 2 * WIDTH) {
        size_t at = WIDTH - ((uintptr_t)out & (WIDTH - 1));
        VECTOR wide = WORDS(plumews_rotated(key, at));
        for (; size - at >= 4 * WIDTH; at += 4 * WIDTH) {
            VECTOR a = XOR(LOAD(data + at), wide);
            VECTOR b = XOR(LOAD(data + at + WIDTH), wide);
            VECTOR c = XOR(LOAD(data + at + 2 * WIDTH), wide);
            VECTOR d = XOR(LOAD(data + at + 3 * WIDTH), wide);
            STORE(out + at, a);
            STORE(out + at + WIDTH, b);
            STORE(out + at + 2 * WIDTH, c);
            STORE(out + at + 3 * WIDTH, d);
            seen = OR(seen, OR(OR(a, b), OR(c, d)));
        }
        for (; size - at >= WIDTH; at += WIDTH) {
            VECTOR a = XOR(LOAD(data + at), wide);
            STORE(out + at, a);
            seen = OR(seen, a);
        }
    }
    STORE(out, first);
    STORE(out + size - WIDTH, last);
    return ANY_HIGH(seen);
}
