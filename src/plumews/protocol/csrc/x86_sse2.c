/* The kernels for what every x86-64 has: SSE2 for masks, and to skip ASCII. The rest of UTF-8 needs byte shuffles. */
#include "kernels.h"

#ifdef PLUMEWS_X86
#include <emmintrin.h>

#define TARGET
#define NAME(what) plumews_##what##_sse2
#define VECTOR __m128i
#define WIDTH 16
#define LOAD(from) _mm_loadu_si128((const __m128i *)(from))
#define STORE(to, v) _mm_storeu_si128((__m128i *)(to), v)
#define XOR(a, b) _mm_xor_si128(a, b)
#define OR(a, b) _mm_or_si128(a, b)
#define WORDS(x) _mm_set1_epi32((int)(x))
#define ANY_HIGH(v) (_mm_movemask_epi8(v) != 0)
#define MASK_BELOW_WIDTH plumews_mask_short
#include "mask_vector.h"

static size_t plumews_utf8_sse2(const uint8_t *data, size_t size)
{
    size_t at = 0;
    for (; size - at >= 64; at += 64) {
        __m128i a = LOAD(data + at), b = LOAD(data + at + 16), c = LOAD(data + at + 32), d = LOAD(data + at + 48);
        if (ANY_HIGH(OR(OR(a, b), OR(c, d))))
            break;
    }
    while (size - at >= 16 && !ANY_HIGH(LOAD(data + at)))
        at += 16;
    return at;
}

const plumews_kernels plumews_sse2 = {
    "sse2", plumews_mask_sse2, plumews_utf8_sse2, plumews_census_portable, plumews_widen_portable,
};
#endif
