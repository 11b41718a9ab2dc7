/* plumews_kernels.census for any kind of vector that compares into bytes of ones. */
TARGET static size_t NAME(census)(const uint8_t *data, size_t size, uint8_t *highest)
{
    VECTOR most = BYTES(0);
    size_t at = 0, count = 0;
    while (size - at >= WIDTH) {
        VECTOR sums = BYTES(0); /* of bytes: they hold out for 255 turns */
        size_t stop = at + 255 * WIDTH < size ? at + 255 * WIDTH : size;
        for (; stop - at >= WIDTH; at += WIDTH) {
            VECTOR now = LOAD(data + at);
            sums = SUBTRACT(sums, NOT_CONTINUATION(now));
            most = MAXIMUM(most, now);
        }
        count += SUM(sums);
    }
    uint8_t bytes[WIDTH];
    STORE(bytes, most);
    for (int i = 0; i < WIDTH; i++)
        if (bytes[i] > *highest)
            *highest = bytes[i];
    return count + plumews_census_portable(data + at, size - at, highest);
}
