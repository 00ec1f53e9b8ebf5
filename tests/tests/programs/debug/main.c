// Something to look into: a thread that computes, then a child.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int answer;

void *compute(void *unused) {
    answer = 42;
    return unused;
}

int main(int count, char **arguments) {
    pthread_t thread;
    if (count > 1) {
        puts("ready");
        fflush(stdout);
        for (;;) pause();
    }
    (void)arguments;
    if (pthread_create(&thread, NULL, compute, NULL) || pthread_join(thread, NULL)) return 1;
    return system("exit 7") == 7 << 8 ? answer : 1;
}
