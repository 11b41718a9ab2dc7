/* Byte kernels of the codec: masks, UTF-8, text. RFC 6455 section 5.3 and 8.1, RFC 3629.
 *
 * One table of function pointers for each tier of instructions; the best one that the CPU has is chosen once, at
 * import (dispatch.c). Invariants: nothing is read or written outside the given memory, no kernel needs alignment,
 * no store bypasses the cache (what is unmasked is read next). No Python here, and no allocation.
 */
#ifndef PLUMEWS_KERNELS_H
#define PLUMEWS_KERNELS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) || (defined(_M_X64) && !defined(_M_ARM64EC))
#define PLUMEWS_X86 1
#elif (defined(__aarch64__) && !defined(__AARCH64EB__)) || defined(_M_ARM64)
#define PLUMEWS_NEON 1
#endif

/* What a kernel may use beyond the compiler's baseline. MSVC takes every intrinsic everywhere. */
#if defined(__GNUC__) || defined(__clang__)
#define PLUMEWS_TARGET(features) __attribute__((target(features)))
#define PLUMEWS_INLINE inline __attribute__((always_inline))
#else
#define PLUMEWS_TARGET(features)
#define PLUMEWS_INLINE __forceinline
#endif

/* The value is wanted in a register here and now. gcc would load a vector twice rather than keep it, and mix four
 * checks of UTF-8 until the registers run out: 18 GB/s instead of 25. */
#if defined(PLUMEWS_X86) && defined(__GNUC__) && !defined(__clang__)
#define PLUMEWS_KEEP(v) __asm__("" : "+x"(v))
#elif defined(PLUMEWS_X86) || defined(PLUMEWS_NEON)
#define PLUMEWS_KEEP(v) (void)(v)
#endif

typedef struct {
    const char *name;

    /* `data` under `key` into `out`, which is `data` itself or apart from it: whether a byte of the result is not
     * ASCII. A key is four bytes as they lie in memory. */
    int (*mask)(uint8_t *out, const uint8_t *data, size_t size, uint32_t key);

    /* How much of `data`, which begins between two characters, is known to be whole valid ones: no less than all up
     * to some 128 bytes before the first error or the end. Automaton and caller judge the rest. */
    size_t (*utf8)(const uint8_t *data, size_t size);

    /* How many characters begin in `data`; `highest` is raised to its highest byte. */
    size_t (*census)(const uint8_t *data, size_t size, uint8_t *highest);

    /* Whole valid characters as code points, for which `width` (1, 2 or 4 bytes) and `room` are enough: how many. */
    size_t (*widen)(void *out, int width, size_t room, const uint8_t *data, size_t size);
} plumews_kernels;

/* The tier in use: the best, until a test says otherwise. */
extern const plumews_kernels *plumews_now;

/* Finds out what the CPU has. To be called once, before anything else here. */
void plumews_begin(void);

/* The tiers that this CPU has, the best last; NULL beyond them. */
const plumews_kernels *plumews_tier(int number);

/* --- text (utf8.c) ---------------------------------------------------------------------------------------------- */

/* States of the automaton that tests may not know: 0 is an error for ever, PLUMEWS_DONE is between two characters. */
enum { PLUMEWS_BAD = 0, PLUMEWS_DONE = 6 };

/* How many bytes of `data` come before the first that cannot stand there; `state` goes along. */
size_t plumews_scan(const uint8_t *data, size_t size, int *state);

/* `data` under `key` into `out`, and scanned on the way. `ascii` is cleared if it is not. */
size_t plumews_mask_scan(uint8_t *out, const uint8_t *data, size_t size, uint32_t key, int *state, int *ascii);

/* A text under `key`: how many bytes come before the first that cannot stand there, how many characters, and the
 * highest byte. */
size_t plumews_survey(const uint8_t *data, size_t size, uint32_t key, int *state, size_t *count, uint8_t *highest);

/* A valid text under `key` as code points. */
void plumews_decode(void *out, int width, size_t room, const uint8_t *data, size_t size, uint32_t key);

/* --- the tiers, and what they share ------------------------------------------------------------------------------ */

int plumews_mask_portable(uint8_t *out, const uint8_t *data, size_t size, uint32_t key);
size_t plumews_utf8_portable(const uint8_t *data, size_t size);
size_t plumews_census_portable(const uint8_t *data, size_t size, uint8_t *highest);
size_t plumews_widen_portable(void *out, int width, size_t room, const uint8_t *data, size_t size);

extern const plumews_kernels plumews_portable;
#ifdef PLUMEWS_X86
extern const plumews_kernels plumews_sse2, plumews_avx2, plumews_avx512;
/* No tier: the parts of AVX2 that work on sixteen bytes, utf8 and widen. */
extern const plumews_kernels plumews_avx2_narrow;
#endif
#ifdef PLUMEWS_NEON
extern const plumews_kernels plumews_neon;
#endif

/* What widen_vector.h does with the next twelve bytes, by which of them end a character (lanes.c). */
typedef struct {
    uint8_t bytes;   /* taken */
    uint8_t count;   /* of characters: 6 in lanes of 16 bits, 4 or 3 in lanes of 32 */
    uint8_t shuffle; /* which brings them there */
} plumews_lanes;
extern plumews_lanes plumews_all_lanes[4096];
extern uint8_t plumews_shuffles[64 + 81 + 64][16];
extern const uint8_t plumews_pairs[16], plumews_triples[16], plumews_quadruples[16];
extern const uint8_t plumews_even_bytes[16], plumews_even_halves[16];
void plumews_fill_lanes(void);

#define PLUMEWS_HIGH_BITS UINT64_C(0x8080808080808080)

static inline uint64_t plumews_load8(const uint8_t *from)
{
    uint64_t word;
    memcpy(&word, from, 8);
    return word;
}

static inline uint32_t plumews_load4(const uint8_t *from)
{
    uint32_t word;
    memcpy(&word, from, 4);
    return word;
}

/* The key for what begins `offset` bytes further on. */
static inline uint32_t plumews_rotated(uint32_t key, size_t offset)
{
    uint64_t twice = (uint64_t)key << 32 | key;
    int bits = (int)(offset & 3) * 8;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return (uint32_t)(twice >> (32 - bits));
#else
    return (uint32_t)(twice >> bits);
#endif
}

/* plumews_kernels.mask for fewer than 16 bytes: two words that overlap, loaded before either is stored. */
static inline int plumews_mask_short(uint8_t *out, const uint8_t *data, size_t size, uint32_t key)
{
    if (size >= 8) {
        uint32_t end = plumews_rotated(key, size);
        uint64_t first = plumews_load8(data) ^ ((uint64_t)key << 32 | key);
        uint64_t last = plumews_load8(data + size - 8) ^ ((uint64_t)end << 32 | end);
        memcpy(out, &first, 8);
        memcpy(out + size - 8, &last, 8);
        return ((first | last) & PLUMEWS_HIGH_BITS) != 0;
    }
    if (size >= 4) {
        uint32_t first = plumews_load4(data) ^ key;
        uint32_t last = plumews_load4(data + size - 4) ^ plumews_rotated(key, size);
        memcpy(out, &first, 4);
        memcpy(out + size - 4, &last, 4);
        return ((first | last) & (uint32_t)PLUMEWS_HIGH_BITS) != 0;
    }
    uint8_t bytes[4], seen = 0;
    memcpy(bytes, &key, 4);
    for (size_t i = 0; i < size; i++)
        seen |= out[i] = data[i] ^ bytes[i];
    return seen >> 7;
}

/* The last place up to `size` in valid characters, the last of which may be cut, that is between two of them. */
static inline size_t plumews_boundary(const uint8_t *data, size_t size)
{
    if (size >= 1 && data[size - 1] >= 0xC0)
        return size - 1;
    if (size >= 2 && data[size - 2] >= 0xE0)
        return size - 2;
    if (size >= 3 && data[size - 3] >= 0xF0)
        return size - 3;
    return size;
}

#endif
