/* The kernels for AVX2 (2013): vectors of 32 bytes. */
#include "kernels.h"

#ifdef PLUMEWS_X86
#include <immintrin.h>

#define TARGET PLUMEWS_TARGET("avx2")
#define NAME(what) plumews_##what##_avx2
#define VECTOR __m256i
#define WIDTH 32
#define LOAD(from) _mm256_loadu_si256((const __m256i *)(from))
#define STORE(to, v) _mm256_storeu_si256((__m256i *)(to), v)
#define XOR(a, b) _mm256_xor_si256(a, b)
#define OR(a, b) _mm256_or_si256(a, b)
#define AND(a, b) _mm256_and_si256(a, b)
#define BYTES(x) _mm256_set1_epi8((char)(x))
#define WORDS(x) _mm256_set1_epi32((int)(x))
#define TABLE(sixteen) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(sixteen)))
#define LOOKUP(table, v) _mm256_shuffle_epi8(table, v)
#define HIGH_NIBBLES(v) _mm256_and_si256(_mm256_srli_epi16(v, 4), BYTES(0x0F))
#define LOW_NIBBLES(v) _mm256_and_si256(v, BYTES(0x0F))
#define SUBTRACT(a, b) _mm256_sub_epi8(a, b)
#define SUBTRACT_OR_0(a, b) _mm256_subs_epu8(a, b)
#define MAXIMUM(a, b) _mm256_max_epu8(a, b)
#define NOT_CONTINUATION(v) _mm256_cmpgt_epi8(v, BYTES(0xBF))
#define ANY_HIGH(v) (_mm256_movemask_epi8(v) != 0)
#define ANY(v) (!_mm256_testz_si256(v, v))

TARGET static size_t sum(__m256i v)
{
    uint64_t sums[4];
    STORE(sums, _mm256_sad_epu8(v, _mm256_setzero_si256()));
    return (size_t)(sums[0] + sums[1] + sums[2] + sums[3]);
}
#define SUM(v) sum(v)

#define MASK_BELOW_WIDTH plumews_sse2.mask
#define UTF8_BELOW_WIDTH plumews_avx2_narrow.utf8

#include "mask_vector.h"
#include "utf8_vector.h"
#include "census_vector.h"

static size_t widen(void *out, int width, size_t room, const uint8_t *data, size_t size)
{
    return plumews_avx2_narrow.widen(out, width, room, data, size);
}

const plumews_kernels plumews_avx2 = {"avx2", plumews_mask_avx2, plumews_utf8_avx2, plumews_census_avx2, widen};
#endif
