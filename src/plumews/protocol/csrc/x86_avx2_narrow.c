/* UTF-8 in vectors of sixteen bytes, for the AVX2 kernels: short inputs, and widening, whose shuffles stay within sixteen. */
#include "kernels.h"

#ifdef PLUMEWS_X86
#include <immintrin.h>

#define TARGET PLUMEWS_TARGET("avx2")
#define NAME(what) plumews_##what##_narrow
#define VECTOR __m128i
#define WIDTH 16
#define LOAD(from) _mm_loadu_si128((const __m128i *)(from))
#define STORE(to, v) _mm_storeu_si128((__m128i *)(to), v)
#define STORE_HALF(to, v) _mm_storel_epi64((__m128i *)(to), v)
#define XOR(a, b) _mm_xor_si128(a, b)
#define OR(a, b) _mm_or_si128(a, b)
#define AND(a, b) _mm_and_si128(a, b)
#define BYTES(x) _mm_set1_epi8((char)(x))
#define HALVES(x) _mm_set1_epi16((short)(x))
#define WORDS(x) _mm_set1_epi32((int)(x))
#define TABLE(sixteen) LOAD(sixteen)
#define LOOKUP(table, v) _mm_shuffle_epi8(table, v)
#define SHUFFLE(v, places) _mm_shuffle_epi8(v, places)
#define HIGH_NIBBLES(v) _mm_and_si128(_mm_srli_epi16(v, 4), BYTES(0x0F))
#define LOW_NIBBLES(v) _mm_and_si128(v, BYTES(0x0F))
#define SUBTRACT(a, b) _mm_sub_epi8(a, b)
#define SUBTRACT_OR_0(a, b) _mm_subs_epu8(a, b)
#define MAXIMUM(a, b) _mm_max_epu8(a, b)
#define NOT_CONTINUATION(v) _mm_cmpgt_epi8(v, BYTES(0xBF))
#define STARTS(from) ((uint32_t)_mm_movemask_epi8(NOT_CONTINUATION(LOAD(from))))
#define SHIFT_HALVES_RIGHT(v, bits) _mm_srli_epi16(v, bits)
#define SHIFT_WORDS_RIGHT(v, bits) _mm_srli_epi32(v, bits)
#define LOW_BYTES_TO_HALVES(v) _mm_unpacklo_epi8(v, _mm_setzero_si128())
#define HIGH_BYTES_TO_HALVES(v) _mm_unpackhi_epi8(v, _mm_setzero_si128())
#define LOW_HALVES_TO_WORDS(v) _mm_unpacklo_epi16(v, _mm_setzero_si128())
#define HIGH_HALVES_TO_WORDS(v) _mm_unpackhi_epi16(v, _mm_setzero_si128())
#define ANY_HIGH(v) (_mm_movemask_epi8(v) != 0)
#define ANY(v) (_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_setzero_si128())) != 0xFFFF)

/* A state machine is as fast on fewer bytes. */
static size_t none(const uint8_t *data, size_t size)
{
    (void)data, (void)size;
    return 0;
}
#define UTF8_BELOW_WIDTH none

#include "utf8_vector.h"
#include "widen_vector.h"

const plumews_kernels plumews_avx2_narrow = {"avx2 narrow", NULL, plumews_utf8_narrow, NULL, plumews_widen_narrow};
#endif
