/* Every kernel of every tier that this CPU has against a definition, one byte or character at a time.
 *
 * Row 6 of the hostile cases: sizes 0 to 200 and some around a block of 4 KiB, at 16 alignments and against both ends
 * of the memory, where the next byte is a page that cannot be touched. What lies around the output must stay as it
 * was. Under AddressSanitizer all that is not given is poisoned, too. Needs no Python, so that it runs wherever a
 * compiler or an emulator does: scripts/check-tiers, scripts/sanitize.
 *
 *   cc -O2 -I src/plumews/protocol/csrc tests/csrc/kernel_check.c $(ls src/plumews/protocol/csrc/?*.c) -o kernel_check
 *   ./kernel_check [tier...]    with names given, those must be the tiers that this CPU has
 */
#define _DEFAULT_SOURCE
#include "kernels.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifdef SANITIZED
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

enum { ROOM = 64 * 1024, MARGIN = 256, AROUND = 0x5A, PLACES = 17 };

static const char *tier;
static unsigned long checks;

static void check(int holds, const char *claim, ...)
{
    va_list values;
    checks++;
    if (holds)
        return;
    fprintf(stderr, "kernel_check: %s: ", tier);
    va_start(values, claim);
    vfprintf(stderr, claim, values);
    va_end(values);
    fputc('\n', stderr);
    abort();
}

static uint64_t chance(void)
{
    static uint64_t state = 6455;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* --- memory with an end --------------------------------------------------------------------------------------- */

typedef struct {
    uint8_t *start; /* of ROOM bytes between two pages that cannot be touched */
    uint8_t *given;
    size_t size;
} box;

static box in, out;

static void make(box *made)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *all = mmap(NULL, ROOM + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all + page, ROOM, PROT_READ | PROT_WRITE) != 0) {
        perror("kernel_check");
        exit(2);
    }
    made->start = all + page;
}

/* As much as there is, up to MARGIN bytes, before and behind what was given. */
static size_t before(const box *of)
{
    size_t all = (size_t)(of->given - of->start);
    return all < MARGIN ? all : MARGIN;
}

static size_t behind(const box *of)
{
    size_t all = (size_t)(of->start + ROOM - of->given) - of->size;
    return all < MARGIN ? all : MARGIN;
}

/* `size` bytes of the box: place 0 to 15 is so many steps from its end, 16 is its beginning. */
static uint8_t *give(box *from, size_t size, int place, size_t step)
{
    ASAN_UNPOISON_MEMORY_REGION(from->start, ROOM);
    from->size = size;
    from->given = place == 16 ? from->start : from->start + ROOM - (size_t)place * step - size;
    memset(from->given - before(from), AROUND, before(from) + size + behind(from));
    ASAN_POISON_MEMORY_REGION(from->given - before(from), before(from));
    ASAN_POISON_MEMORY_REGION(from->given + size, behind(from));
    return from->given;
}

/* Nothing around what was given has changed. */
static void check_around(box *from, const char *kernel)
{
    static uint8_t around[MARGIN];
    memset(around, AROUND, MARGIN);
    ASAN_UNPOISON_MEMORY_REGION(from->start, ROOM);
    int low = memcmp(from->given - before(from), around, before(from));
    int high = memcmp(from->given + from->size, around, behind(from));
    check(low == 0, "%s wrote before its %zu bytes", kernel, from->size);
    check(high == 0, "%s wrote behind its %zu bytes", kernel, from->size);
}

/* --- definitions ---------------------------------------------------------------------------------------------- */

static uint8_t clear[ROOM], masked[ROOM];
static uint32_t points[ROOM];

static uint32_t key_of(const uint8_t *key)
{
    uint32_t word;
    memcpy(&word, key, 4);
    return word;
}

/* RFC 3629: how many bytes come before the first impossible one; `points` become the characters before it. */
static size_t define(const uint8_t *data, size_t size, size_t *count, int *whole)
{
    *count = 0;
    *whole = 1;
    for (size_t at = 0; at < size;) {
        uint8_t lead = data[at], low = 0x80, high = 0xBF;
        size_t length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
        if (length == 0)
            return *whole = 0, at;
        low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : low;
        high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : high;
        uint32_t point = length == 1 ? lead : lead & (0x7Fu >> length);
        for (size_t i = 1; i < length; i++, low = 0x80, high = 0xBF) {
            if (at + i == size)
                return *whole = 0, size;
            if (data[at + i] < low || data[at + i] > high)
                return *whole = 0, at + i;
            point = point << 6 | (data[at + i] & 0x3F);
        }
        points[(*count)++] = point;
        at += length;
    }
    return size;
}

/* --- masks ---------------------------------------------------------------------------------------------------- */

static void check_mask(size_t size, int place, int offset, int kind)
{
    uint8_t key[4] = {0x37, 0x7A, 0x21, 0x3D};
    uint8_t highs = 0;
    if (kind & 1)
        key[chance() & 3] |= 0x80;
    for (size_t i = 0; i < size; i++)
        masked[i] = (uint8_t)(kind & 2 ? chance() : (chance() & 0x7F) | (key[(i + (size_t)offset) & 3] & 0x80));
    if (size && kind & 4)
        masked[chance() % size] ^= 0x80; /* the only one that is not ASCII, perhaps */
    for (size_t i = 0; i < size; i++)
        highs |= clear[i] = masked[i] ^ key[(i + (size_t)offset) & 3];
    uint32_t word = plumews_rotated(key_of(key), (size_t)offset);

    uint8_t *data = give(&in, size, place, 1);
    uint8_t *result = give(&out, size, (place * 5 + offset * 3) % PLACES, 1);
    memcpy(data, masked, size);
    int high = plumews_now->mask(result, data, size, word);
    check(high == highs >> 7, "mask of %zu bytes says %d", size, high);
    check(memcmp(result, clear, size) == 0, "mask of %zu bytes, place %d, offset %d", size, place, offset);
    check(memcmp(data, masked, size) == 0, "mask of %zu bytes wrote to its input", size);
    high = plumews_now->mask(data, data, size, word);
    check(high == highs >> 7, "mask of %zu bytes in place says %d", size, high);
    check(memcmp(data, clear, size) == 0, "mask of %zu bytes in place %d, offset %d", size, place, offset);
    check_around(&in, "mask in place");
    check_around(&out, "mask");
}

/* --- UTF-8 ---------------------------------------------------------------------------------------------------- */

static size_t put(uint8_t *to, uint32_t point)
{
    if (point < 0x80)
        return to[0] = (uint8_t)point, 1;
    if (point < 0x800)
        return to[0] = (uint8_t)(0xC0 | point >> 6), to[1] = (uint8_t)(0x80 | (point & 0x3F)), 2;
    to[0] = (uint8_t)(point < 0x10000 ? 0xE0 | point >> 12 : 0xF0 | point >> 18);
    if (point >= 0x10000)
        *++to = (uint8_t)(0x80 | (point >> 12 & 0x3F));
    to[1] = (uint8_t)(0x80 | (point >> 6 & 0x3F));
    to[2] = (uint8_t)(0x80 | (point & 0x3F));
    return point < 0x10000 ? 3 : 4;
}

/* The bounds of RFC 3629, each with its neighbours. */
static const uint32_t BOUNDS[] = {
    0,      1,      0x7F,   0x80,   0xFF,   0x100,   0x7FF,   0x800,   0xFFF,   0x1000,
    0xD7FF, 0xE000, 0xFFFD, 0xFFFF, 0xCFFF, 0x10000, 0x3FFFF, 0x40000, 0xFFFFF, 0x100000, 0x10FFFF,
};

/* A character of a kind: one length each, Latin-1, all mixed, mostly ASCII, the bounds, runs of one length. */
static uint32_t character(int kind)
{
    static const uint32_t first[] = {0, 0x80, 0x800, 0x10000}, last[] = {0x7F, 0x7FF, 0xFFFF, 0x10FFFF};
    static int run, left;
    uint32_t point;
    if (left-- <= 0)
        run = (int)(chance() & 3), left = (int)(chance() % 60);
    if (kind == 4)
        return (uint32_t)(chance() & 0xFF);
    if (kind == 7)
        return BOUNDS[chance() % (sizeof BOUNDS / sizeof *BOUNDS)];
    if (kind > 4)
        kind = kind == 8 ? run : kind == 6 && chance() % 20 ? 0 : (int)(chance() & 3);
    do
        point = first[kind] + (uint32_t)(chance() % (last[kind] - first[kind] + 1));
    while (point >= 0xD800 && point < 0xE000);
    return point;
}
enum { KINDS = 9 };

/* `size` bytes of text in `clear`, the last character maybe cut. */
static void write_text(size_t size, int kind)
{
    for (size_t at = 0; at < size;)
        at += put(clear + at, character(kind));
}

static void check_text(size_t size, int place)
{
    static const uint8_t keys[2][4] = {{0, 0, 0, 0}, {0x37, 0xFA, 0x21, 0x3D}};
    size_t count, good;
    int whole;
    good = define(clear, size, &count, &whole);
    uint8_t *data = give(&in, size, place, 1);
    memcpy(data, clear, size);

    size_t sure = plumews_now->utf8(data, size), of_them;
    int ends;
    check(sure <= good, "utf8 takes %zu of %zu bytes, %zu are good", sure, size, good);
    check(sure <= good && define(clear, sure, &of_them, &ends) == sure && ends, "utf8 cuts a character at %zu", sure);

    size_t cut = size ? chance() % (size + 1) : 0;
    int state = PLUMEWS_DONE;
    size_t took = plumews_scan(data, cut, &state);
    if (took == cut && state != PLUMEWS_BAD)
        took += plumews_scan(data + cut, size - cut, &state);
    check(took == good, "scan of %zu bytes, cut at %zu: %zu, not %zu", size, cut, took, good);
    check((state == PLUMEWS_BAD) == (good < size), "scan of %zu bytes, cut at %zu: state %d", size, cut, state);
    check((state == PLUMEWS_DONE) == whole, "scan of %zu bytes, cut at %zu: not whole, %d", size, cut, state);

    define(clear, size, &count, &whole);
    for (int which = 0; which < 2; which++) {
        const uint8_t *key = keys[which];
        uint8_t most = 0, highest = 0;
        size_t counted = 0;
        int ascii = 1;
        uint32_t word = key_of(key);
        for (size_t i = 0; i < size; i++) {
            data[i] = clear[i] ^ key[i & 3];
            most = clear[i] > most ? clear[i] : most;
        }
        uint8_t *result = give(&out, size, (place * 3 + which) % PLACES, 1);
        state = PLUMEWS_DONE;
        took = plumews_mask_scan(result, data, size, word, &state, &ascii);
        check(took == good, "mask_scan of %zu bytes: %zu, not %zu", size, took, good);
        check((state == PLUMEWS_DONE) == whole, "mask_scan of %zu bytes: state %d", size, state);
        check(memcmp(result, clear, took) == 0, "mask_scan of %zu bytes: what it wrote", size);
        check(good < size || ascii == (most < 0x80), "mask_scan of %zu bytes: ascii is %d", size, ascii);
        check_around(&out, "mask_scan");

        state = PLUMEWS_DONE;
        took = plumews_survey(data, size, word, &state, &counted, &highest);
        check(took == good, "survey of %zu bytes: %zu, not %zu", size, took, good);
        check((state == PLUMEWS_DONE) == whole, "survey of %zu bytes: state %d", size, state);
        if (!whole)
            continue;
        check(counted == count && highest == most, "survey of %zu bytes: %zu characters, %02x", size, counted, highest);
        for (int width = 1; width <= 4; width *= 2) {
            if ((width == 1 && most >= 0xC4) || (width == 2 && most >= 0xF0))
                continue;
            uint8_t *text = give(&out, count * (size_t)width, place, 4);
            plumews_decode(text, width, count, data, size, word);
            for (size_t i = 0; i < count; i++) {
                uint32_t point = width == 1 ? text[i] : width == 2 ? ((uint16_t *)text)[i] : ((uint32_t *)text)[i];
                check(point == points[i], "decode of %zu bytes to %d: %zu is %x", size, width, i, point);
            }
            check_around(&out, "decode");
        }
    }
    check_around(&in, "text");
}

static const char *FAULTS[] = {
    "\x80",         "\x80\x80",         "\xBF",             "\xC0\x80",         "\xC1\xBF", "\xE0\x9F\xBF",
    "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF",     "\xC3",
    "\xE2\x82",     "\xF0\x9F\x98",     "a",
};

/* A text with a fault, or what may be one, put over it at any place. */
static void check_faults(size_t size, int kind)
{
    for (size_t i = 0; i < sizeof FAULTS / sizeof *FAULTS; i++) {
        write_text(size, kind);
        size_t length = strlen(FAULTS[i]), at = chance() % size;
        memcpy(clear + at, FAULTS[i], length);
        check_text(size, (int)(chance() % PLACES));
    }
}

/* --- all ------------------------------------------------------------------------------------------------------ */

static void check_size(size_t size, int places)
{
    for (int place = 0; place < PLACES; place += places) {
        for (int offset = 0; offset < 4; offset++)
            for (int kind = 0; kind < 8; kind++)
                check_mask(size, place, offset, kind);
        for (int kind = 0; kind < KINDS; kind++) {
            write_text(size, kind);
            check_text(size, place);
        }
    }
    for (int kind = 0; size && kind < KINDS; kind++)
        check_faults(size, kind);
}

int main(int argc, char **argv)
{
    static const size_t large[] = {255, 256, 257, 319, 513, 1000, 4095, 4096, 4097, 4099, 4160, 8191, 8193, 12289};
    make(&in);
    make(&out);
    plumews_begin();
    printf("kernel_check:");
    int number = 0;
    for (; plumews_tier(number); number++) {
        plumews_now = plumews_tier(number);
        tier = plumews_now->name;
        check(argc == 1 || (number + 1 < argc && strcmp(argv[number + 1], tier) == 0), "this tier was not expected");
        for (size_t size = 0; size <= 200; size++)
            check_size(size, 1);
        for (size_t i = 0; i < sizeof large / sizeof *large; i++)
            check_size(large[i], 8);
        printf(" %s", tier);
        fflush(stdout);
    }
    check(argc == 1 || number == argc - 1, "the last tier of this CPU, but %s was expected", argv[argc - 1]);
    printf(": %lu checks passed\n", checks);
    return 0;
}
