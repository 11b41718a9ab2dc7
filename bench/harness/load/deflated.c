/* Messages that are compressed (RFC 7692), and what comes back for them.
 *
 * They are made by others, and read from a file: the size of each in four bytes, big-endian, and its payload. How a
 * server compresses its answer is not known here. So each different answer to a message is kept, every further one has
 * to be one of these, byte by byte, and all that are kept are written to a file in the end: the number of the message
 * in four bytes, and as above. Who has made the messages inflates them, and so has checked everything that came. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DIFFERENT = 16 }; /* answers to one message: without context takeover there is hardly ever a second one */

struct answer {
    struct answer *next;
    size_t size;
    uint8_t payload[];
};

struct answers {
    unsigned kinds;
    struct answer *first[];
};

static size_t four_bytes(const uint8_t *at) {
    return (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
}

static void put_four_bytes(size_t value, FILE *file) {
    for (int shift = 24; shift >= 0; shift -= 8)
        fputc((int)(value >> shift & 255), file);
}

uint8_t *deflated_read(const char *path, unsigned *kinds, size_t **sizes) {
    FILE *file = fopen(path, "rb");
    uint8_t head[4], *payloads = NULL;
    size_t room = 0, used = 0;
    if (file == NULL)
        fail("cannot read %s", path);
    *sizes = NULL;
    for (*kinds = 0; fread(head, 1, 4, file) == 4; ++*kinds) {
        size_t size = four_bytes(head);
        if (size == 0 || size > MOST_ANSWER)
            fail("%s: a message of %zu bytes, and not of 1 to %d", path, size, MOST_ANSWER);
        while (used + size > room)
            if ((payloads = realloc(payloads, room = 2 * room + MOST_ANSWER)) == NULL)
                fail("no memory");
        if ((*sizes = realloc(*sizes, (*kinds + 1) * sizeof **sizes)) == NULL)
            fail("no memory");
        if (fread(payloads + used, 1, size, file) != size)
            fail("%s: the last message is cut", path);
        (*sizes)[*kinds] = size;
        used += size;
    }
    fclose(file);
    if (*kinds == 0)
        fail("%s: no messages", path);
    return payloads;
}

struct answers *answers_new(unsigned kinds) {
    struct answers *answers = calloc(1, sizeof *answers + kinds * sizeof *answers->first);
    if (answers == NULL)
        fail("no memory");
    answers->kinds = kinds;
    return answers;
}

void answers_part(struct reading *reading, const uint8_t *data, size_t size) {
    if (reading->kept == NULL && (reading->kept = malloc(MOST_ANSWER)) == NULL)
        fail("no memory");
    memcpy(reading->kept + reading->at, data, size); /* fits: the frame's header was judged by MOST_ANSWER */
}

void answers_complete(const struct frames *frames, struct reading *reading) {
    struct answer **place = &frames->answers->first[reading->kind];
    for (unsigned number = 0; number < MOST_DIFFERENT; number++, place = &(*place)->next) {
        if (*place == NULL) {
            struct answer *added = malloc(sizeof *added + reading->at);
            if (added == NULL)
                fail("no memory");
            *added = (struct answer){.size = reading->at};
            if (reading->at > 0)
                memcpy(added->payload, reading->kept, reading->at);
            *place = added;
            return;
        }
        if ((*place)->size == reading->at && memcmp((*place)->payload, reading->kept, reading->at) == 0)
            return;
    }
    fail("wrong %s: message %llu is another one each time: is there a context takeover?", frames->what,
         (unsigned long long)reading->message);
}

void answers_write(const struct frames *frames, const char *path) {
    if (path == NULL || frames->answers == NULL)
        return;
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        fail("cannot write %s", path);
    for (unsigned kind = 0; kind < frames->answers->kinds; kind++)
        for (const struct answer *answer = frames->answers->first[kind]; answer != NULL; answer = answer->next) {
            put_four_bytes(kind, file);
            put_four_bytes(answer->size, file);
            fwrite(answer->payload, 1, answer->size, file);
        }
    if (fclose(file) != 0)
        fail("cannot write %s", path);
}
