/* The kernels for NEON, which every 64-bit ARM has. */
#include "kernels.h"

#ifdef PLUMEWS_NEON
#include <arm_neon.h>

#define TARGET
#define NAME(what) plumews_##what##_neon
#define VECTOR uint8x16_t
#define WIDTH 16
#define LOAD(from) vld1q_u8(from)
#define STORE(to, v) vst1q_u8((uint8_t *)(to), v)
#define STORE_HALF(to, v) vst1_u8((uint8_t *)(to), vget_low_u8(v))
#define XOR(a, b) veorq_u8(a, b)
#define OR(a, b) vorrq_u8(a, b)
#define AND(a, b) vandq_u8(a, b)
#define BYTES(x) vdupq_n_u8((uint8_t)(x))
#define HALVES(x) vreinterpretq_u8_u16(vdupq_n_u16((uint16_t)(x)))
#define WORDS(x) vreinterpretq_u8_u32(vdupq_n_u32((uint32_t)(x)))
#define TABLE(sixteen) LOAD(sixteen)
#define LOOKUP(table, v) vqtbl1q_u8(table, v)
#define SHUFFLE(v, places) vqtbl1q_u8(v, places)
#define HIGH_NIBBLES(v) vshrq_n_u8(v, 4)
#define LOW_NIBBLES(v) vandq_u8(v, BYTES(0x0F))
#define SUBTRACT(a, b) vsubq_u8(a, b)
#define SUBTRACT_OR_0(a, b) vqsubq_u8(a, b)
#define MAXIMUM(a, b) vmaxq_u8(a, b)
#define NOT_CONTINUATION(v) vcgtq_s8(vreinterpretq_s8_u8(v), vdupq_n_s8(-65))
#define SHIFT_HALVES_RIGHT(v, bits) vreinterpretq_u8_u16(vshrq_n_u16(vreinterpretq_u16_u8(v), bits))
#define SHIFT_WORDS_RIGHT(v, bits) vreinterpretq_u8_u32(vshrq_n_u32(vreinterpretq_u32_u8(v), bits))
#define LOW_BYTES_TO_HALVES(v) vzip1q_u8(v, BYTES(0))
#define HIGH_BYTES_TO_HALVES(v) vzip2q_u8(v, BYTES(0))
#define LOW_HALVES_TO_WORDS(v) \
    vreinterpretq_u8_u16(vzip1q_u16(vreinterpretq_u16_u8(v), vdupq_n_u16(0)))
#define HIGH_HALVES_TO_WORDS(v) \
    vreinterpretq_u8_u16(vzip2q_u16(vreinterpretq_u16_u8(v), vdupq_n_u16(0)))
#define ANY_HIGH(v) (vmaxvq_u8(v) >= 0x80)
#define ANY(v) (vmaxvq_u8(v) != 0)
#define SUM(v) ((size_t)vaddlvq_u8(v))

/* One bit for each byte that begins a character. */
static inline uint32_t starts(const uint8_t *from)
{
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t found = vandq_u8(NOT_CONTINUATION(LOAD(from)), LOAD(bits));
    return vaddv_u8(vget_low_u8(found)) | (uint32_t)vaddv_u8(vget_high_u8(found)) << 8;
}
#define STARTS(from) starts(from)

/* A state machine is as fast on fewer bytes. */
static size_t none(const uint8_t *data, size_t size)
{
    (void)data, (void)size;
    return 0;
}
#define MASK_BELOW_WIDTH plumews_mask_short
#define UTF8_BELOW_WIDTH none

#include "mask_vector.h"
#include "utf8_vector.h"
#include "census_vector.h"
#include "widen_vector.h"

const plumews_kernels plumews_neon = {
    "neon", plumews_mask_neon, plumews_utf8_neon, plumews_census_neon, plumews_widen_neon,
};
#endif
