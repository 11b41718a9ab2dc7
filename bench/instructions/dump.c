/* Preloaded into a server under callgrind: SIGUSR2 calls bench_dump(), before which callgrind dumps its counts.
 *
 * So the count of some messages does not need two processes, nor valgrind's headers. */
#include <signal.h>

__attribute__((noinline, visibility("default"))) void bench_dump(void) { __asm__ volatile(""); }

static void on_signal(int number) {
    (void)number;
    bench_dump();
}

__attribute__((constructor)) static void begin(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR2, &action, 0);
}
