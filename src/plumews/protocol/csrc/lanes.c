/* The shuffles of widen_vector.h: for each way in which twelve bytes of UTF-8 can be characters, where those go.
 *
 * Six characters of at most two bytes go into lanes of 16 bits; else four of at most three, or three of at most four,
 * into lanes of 32: last byte first, nothing (an index of 0x80) above the first.
 */
#include "kernels.h"

enum { NOTHING = 0x80 };

plumews_lanes plumews_all_lanes[4096];
uint8_t plumews_shuffles[64 + 81 + 64][16];

#define X NOTHING
const uint8_t plumews_pairs[16] = {1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14};
const uint8_t plumews_triples[16] = {2, 1, 0, X, 5, 4, 3, X, 8, 7, 6, X, 11, 10, 9, X};
const uint8_t plumews_quadruples[16] = {3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12};
const uint8_t plumews_even_bytes[16] = {0, 2, 4, 6, 8, 10, 12, 14, X, X, X, X, X, X, X, X};
const uint8_t plumews_even_halves[16] = {0, 1, 4, 5, 8, 9, 12, 13, X, X, X, X, X, X, X, X};

/* The first `count` of `lengths` into lanes of `wide` bytes; the shuffle's number is `base` and the lengths' digits. */
static void fill(plumews_lanes *lanes, const int *lengths, int count, int wide, int most, int base)
{
    int digits = 0, at = 0;
    for (int i = count - 1; i >= 0; i--)
        digits = digits * most + lengths[i] - 1;
    uint8_t *shuffle = plumews_shuffles[base + digits];
    memset(shuffle, NOTHING, 16);
    for (int i = 0; i < count; i++) {
        for (int back = 0; back < lengths[i]; back++)
            shuffle[i * wide + back] = (uint8_t)(at + lengths[i] - 1 - back);
        at += lengths[i];
    }
    lanes->bytes = (uint8_t)at;
    lanes->count = (uint8_t)count;
    lanes->shuffle = (uint8_t)(base + digits);
}

/* Whether each of the first `count` of `lengths` is known, and at most `most`. */
static int fit(const int *lengths, int count, int most)
{
    for (int i = 0; i < count; i++)
        if (lengths[i] == 0 || lengths[i] > most)
            return 0;
    return 1;
}

void plumews_fill_lanes(void)
{
    for (int ends = 0; ends < 4096; ends++) {
        int lengths[12] = {0}, known = 0, length = 0;
        for (int i = 0; i < 12; i++) {
            length++;
            if (ends >> i & 1) {
                lengths[known++] = length;
                length = 0;
            }
        }
        for (int i = 0; i < 3; i++) /* what is in no valid text stays harmless */
            if (lengths[i] == 0 || lengths[i] > 4)
                lengths[i] = 4;
        plumews_lanes *lanes = &plumews_all_lanes[ends];
        if (fit(lengths, 6, 2))
            fill(lanes, lengths, 6, 2, 2, 0);
        else if (fit(lengths, 4, 3))
            fill(lanes, lengths, 4, 4, 3, 64);
        else
            fill(lanes, lengths, 3, 4, 4, 64 + 81);
    }
}
