/* What the CPU has, found out once: the tiers of kernels that it can run, and the one in use.
 *
 * By the compiler's own test where there is one. No ifunc and no target_clones: musl, macOS and MSVC lack them.
 */
#include "kernels.h"

#if defined(PLUMEWS_X86) && defined(_MSC_VER) && !defined(__clang__)
#include <immintrin.h>
#include <intrin.h>

/* Leaf 7, if the system saves the registers in `state`, too. */
static int has_extended(int *parts, unsigned state)
{
    __cpuid(parts, 0);
    if (parts[0] < 7)
        return 0;
    __cpuid(parts, 1);
    if (!(parts[2] >> 27 & 1) || (_xgetbv(0) & state) != state)
        return 0;
    __cpuidex(parts, 7, 0);
    return 1;
}

static int has_avx2(void)
{
    int parts[4];
    return has_extended(parts, 0x06) && parts[1] >> 5 & 1;
}

static int has_avx512(void)
{
    int parts[4]; /* F, BW and VL; VBMI2 */
    return has_extended(parts, 0xE6) && parts[1] >> 16 & parts[1] >> 30 & parts[1] >> 31 & parts[2] >> 6 & 1;
}
#elif defined(PLUMEWS_X86)
static int has_avx2(void) { return __builtin_cpu_supports("avx2") != 0; }
static int has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
           && __builtin_cpu_supports("avx512vbmi2");
}
#endif

const plumews_kernels *plumews_now = &plumews_portable;

static const plumews_kernels *tiers[4];
static int known;

void plumews_begin(void)
{
    if (known)
        return;
    plumews_fill_lanes();
    tiers[known++] = &plumews_portable;
#ifdef PLUMEWS_X86
    tiers[known++] = &plumews_sse2;
#if defined(__GNUC__) || defined(__clang__)
    __builtin_cpu_init();
#endif
    if (has_avx2()) {
        tiers[known++] = &plumews_avx2;
        if (has_avx512())
            tiers[known++] = &plumews_avx512;
    }
#endif
#ifdef PLUMEWS_NEON
    tiers[known++] = &plumews_neon;
#endif
    plumews_now = tiers[known - 1];
}

const plumews_kernels *plumews_tier(int number)
{
    return 0 <= number && number < known ? tiers[number] : NULL;
}
