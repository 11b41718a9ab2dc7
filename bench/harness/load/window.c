/* The measured part of a run: how much was done, how long it took each, what it cost the server.
 *
 * The server's processor time is read through its CPU clock, at the very edges of the window and in nanoseconds:
 * /proc/<pid>/stat counts in hundredths of a second. Latencies go to a histogram of 64 steps for each power of two. */
#define _GNU_SOURCE
#include "load.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { STEPS = 64 };
static uint64_t histogram[64 * STEPS];
static clockid_t server_clock;
static int server_pid;
static const volatile uint64_t *counters;

static double seconds_of(clockid_t clock) {
    struct timespec at;
    if (clock_gettime(clock, &at) != 0)
        fail("the server's CPU clock cannot be read");
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

uint64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

void window_begin(struct window *window, const struct options *options) {
    memset(window, 0, sizeof *window);
    server_pid = options->pid;
    if (server_pid != 0 && clock_getcpuclockid(options->pid, &server_clock) != 0)
        fail("no CPU clock of process %d", options->pid);
    if (options->counts != NULL) {
        int fd = open(options->counts, O_RDONLY | O_CLOEXEC);
        void *memory = mmap(NULL, COUNTERS * sizeof *counters, PROT_READ, MAP_SHARED, fd, 0);
        if (fd < 0 || memory == MAP_FAILED)
            fail("cannot read %s", options->counts);
        close(fd);
        counters = memory;
    }
    window->warm_at = now_ns() + (uint64_t)(options->warmup * 1e9);
    window->stop_at = window->warm_at + (uint64_t)(options->seconds * 1e9);
}

/* How long the first thread of a process has waited for a core; 0 where the kernel does not say. */
static double held(const char *path) {
    unsigned long long ran, waited = 0;
    FILE *file = fopen(path, "r");
    if (file != NULL) {
        if (fscanf(file, "%llu %llu", &ran, &waited) != 2)
            waited = 0;
        fclose(file);
    }
    return (double)waited / 1e9;
}

double memory_of(int pid) {
    char path[64], line[256];
    double kibibytes = 0;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        fail("the server's memory cannot be read: --pid");
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "Pss: %lf", &kibibytes) == 1)
            break;
    fclose(file);
    return kibibytes * 1024;
}

/* Add what was used so far, with sign -1 at the beginning and 1 at the end. */
static void add_costs(struct window *window, int sign) {
    window->load_cpu += sign * seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    window->load_held += sign * held("/proc/self/schedstat");
    if (server_pid != 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/schedstat", server_pid);
        window->server_cpu += sign * seconds_of(server_clock);
        window->server_held += sign * held(path);
    }
    for (int number = 0; counters != NULL && number < COUNTERS; number++)
        window->counts[number] += (uint64_t)sign * counters[number];
}

bool window_over(struct window *window, uint64_t now) {
    if (window->began_at == 0 && now >= window->warm_at) {
        window->began_at = now;
        add_costs(window, -1);
    } else if (window->began_at != 0 && now >= window->stop_at) {
        window->ended_at = now;
        add_costs(window, 1);
        return true;
    }
    return false;
}

void window_count(struct window *window, uint64_t nanoseconds) {
    if (window->began_at == 0)
        return;
    window->done++;
    if (nanoseconds < STEPS) {
        histogram[nanoseconds]++;
        return;
    }
    int shift = 63 - __builtin_clzll(nanoseconds) - 6;
    histogram[(uint64_t)(shift + 1) * STEPS + ((nanoseconds >> shift) - STEPS)]++;
}

/* Microseconds that this part of what was counted did not exceed. */
static double percentile(uint64_t done, double part) {
    uint64_t wanted = (uint64_t)((double)done * part), seen = 0;
    for (unsigned slot = 0; slot < 64 * STEPS; slot++) {
        seen += histogram[slot];
        if (seen > wanted) {
            unsigned power = slot / STEPS, step = slot % STEPS;
            double low = power == 0 ? step : (double)((uint64_t)(STEPS + step) << (power - 1));
            double high = power == 0 ? step + 1 : low + (double)(1ull << (power - 1));
            return (low + high) / 2e3;
        }
    }
    return 0;
}

void window_print(const struct window *window, const char *more) {
    if (window->done == 0)
        fail("nothing was done in time");
    printf("{\"done\": %llu, \"seconds\": %.9f, \"server_cpu\": %.9f, \"load_cpu\": %.9f, \"p50\": %.3f, \"p99\": %.3f",
           (unsigned long long)window->done, (double)(window->ended_at - window->began_at) / 1e9, window->server_cpu,
           window->load_cpu, percentile(window->done, 0.5), percentile(window->done, 0.99));
    printf(", \"server_held\": %.9f, \"load_held\": %.9f", window->server_held, window->load_held);
    printf(", \"agreed\": \"%s\"", agreed());
    printf(", \"counts\": [");
    for (int number = 0; counters != NULL && number < COUNTERS; number++)
        printf("%s%llu", number ? ", " : "", (unsigned long long)window->counts[number]);
    printf("]%s}\n", more);
}
