// What a C program asks of the kernel directly. Prints a line per part.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MUST(what) \
    do { \
        if (!(what)) { \
            fprintf(stderr, "%s:%d: %s: %s\n", __func__, __LINE__, #what, strerror(errno)); \
            exit(1); \
        } \
    } while (0)

extern char **environ;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int total;

static void *add(void *unused) {
    for (int i = 0; i < 1000; i++) {
        pthread_mutex_lock(&lock);
        total++;
        pthread_mutex_unlock(&lock);
    }
    return unused;
}

static void threads(void) {
    pthread_t all[8];
    cpu_set_t cpus;
    for (int i = 0; i < 8; i++) MUST(pthread_create(&all[i], NULL, add, NULL) == 0);
    MUST(pthread_getaffinity_np(all[0], sizeof cpus, &cpus) == 0);
    MUST(pthread_setaffinity_np(all[1], sizeof cpus, &cpus) == 0 || errno == ESRCH);
    for (int i = 0; i < 8; i++) MUST(pthread_join(all[i], NULL) == 0);
    MUST(total == 8000);
}

static void children(void) {
    int status;
    pid_t pid = fork();
    if (pid == 0) _exit(3);
    MUST(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 3);
    pid = vfork();
    if (pid == 0) {
        execlp("true", "true", NULL);
        _exit(127);
    }
    MUST(waitpid(pid, &status, 0) == pid && status == 0);
    char *argv[] = {"sh", "-c", "exit 4", NULL};
    MUST(posix_spawnp(&pid, "sh", NULL, NULL, argv, environ) == 0);
    MUST(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 4);
    FILE *out = popen("echo popen", "r");
    char line[16];
    MUST(out && fgets(line, sizeof line, out) && strcmp(line, "popen\n") == 0 && pclose(out) == 0);
    pid = fork();
    if (pid == 0) abort();
    MUST(waitpid(pid, &status, 0) == pid && WTERMSIG(status) == SIGABRT);
}

static void events(void) {
    int poll = epoll_create1(EPOLL_CLOEXEC), event = eventfd(1, EFD_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, 0);
    MUST(poll >= 0 && event >= 0 && timer >= 0);
    struct itimerspec soon = {.it_value = {.tv_nsec = 1}};
    MUST(timerfd_settime(timer, 0, &soon, NULL) == 0);
    struct epoll_event wanted = {.events = EPOLLIN}, got;
    MUST(epoll_ctl(poll, EPOLL_CTL_ADD, timer, &wanted) == 0 && epoll_wait(poll, &got, 1, -1) == 1);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    int signals = signalfd(-1, &set, SFD_CLOEXEC);
    union sigval value = {.sival_int = 42};
    MUST(signals >= 0 && sigqueue(getpid(), SIGUSR1, value) == 0);
    struct signalfd_siginfo info;
    MUST(read(signals, &info, sizeof info) == sizeof info && info.ssi_int == 42);
    timer_t posix;
    struct sigevent by = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    MUST(timer_create(CLOCK_MONOTONIC, &by, &posix) == 0 && timer_settime(posix, 0, &soon, NULL) == 0);
    MUST(read(signals, &info, sizeof info) == sizeof info && timer_delete(posix) == 0);
}

static void memory(void) {
    int fd = memfd_create("memory", MFD_CLOEXEC);
    MUST(fd >= 0 && ftruncate(fd, 8192) == 0);
    char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    MUST(map != MAP_FAILED);
    map[0] = 42;
    MUST(msync(map, 8192, MS_SYNC) == 0 && madvise(map, 8192, MADV_DONTNEED) == 0 && map[0] == 42);
    // what a just-in-time compiler does
    unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(code != MAP_FAILED && mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0 && munmap(code, 4096) == 0);
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(mlock(page, 4096) == 0 && munlock(page, 4096) == 0);
    unsigned random;
    MUST(getrandom(&random, sizeof random, 0) == sizeof random);
}

static void interprocess(void) {
    char name[64];
    snprintf(name, sizeof name, "/programs-c-%d", getpid());
    sem_t *semaphore = sem_open(name, O_CREAT | O_EXCL, 0600, 1);
    MUST(semaphore != SEM_FAILED && sem_wait(semaphore) == 0 && sem_close(semaphore) == 0 && sem_unlink(name) == 0);
    int shared = shm_open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
    MUST(shared >= 0 && ftruncate(shared, 4096) == 0 && shm_unlink(name) == 0);
    int segment = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600), set = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
    MUST(segment >= 0 && shmctl(segment, IPC_RMID, NULL) == 0 && set >= 0 && semctl(set, 0, IPC_RMID) == 0);
}

static void queues(void) {
    char name[64];
    snprintf(name, sizeof name, "/programs-c-%d", getpid());
    struct mq_attr size = {.mq_maxmsg = 1, .mq_msgsize = 4};
    mqd_t queue = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &size);
    char four[4];
    MUST(queue >= 0 && mq_send(queue, "four", 4, 0) == 0 && mq_receive(queue, four, 4, NULL) == 4 && mq_unlink(name) == 0);
}

static void files(const char *directory) {
    char path[256], other[300];
    snprintf(path, sizeof path, "%s/file", directory);
    snprintf(other, sizeof other, "%s/other", directory);
    int inotify = inotify_init1(IN_CLOEXEC);
    MUST(inotify >= 0 && inotify_add_watch(inotify, directory, IN_CREATE) >= 0);
    int file = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    char event[sizeof(struct inotify_event) + 256];
    MUST(file >= 0 && read(inotify, event, sizeof event) > 0);
    MUST(write(file, "content", 7) == 7 && fsync(file) == 0 && flock(file, LOCK_EX) == 0);
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    MUST(fcntl(file, F_OFD_SETLK, &range) == 0);
    int copy = open(other, O_CREAT | O_RDWR, 0600);
    off_t from = 0;
    MUST(copy >= 0 && sendfile(copy, file, &from, 7) == 7);
    MUST(fchmod(copy, 0644) == 0 && futimens(copy, NULL) == 0 && fchown(copy, -1, getgid()) == 0);
    MUST(fsetxattr(copy, "user.note", "x", 1, 0) == 0 || errno == ENOTSUP);
    MUST(renameat2(AT_FDCWD, path, AT_FDCWD, other, 2 /* RENAME_EXCHANGE */) == 0 || errno == EINVAL);
    MUST(truncate(path, 3) == 0 && fallocate(file, 0, 0, 4096) == 0);
    int unnamed = open(directory, O_TMPFILE | O_RDWR, 0600);
    MUST(unnamed >= 0 || errno == EOPNOTSUPP);
    // between directories, which is a right of its own for Landlock
    char inner[300], moved[310];
    snprintf(inner, sizeof inner, "%s/inner", directory);
    snprintf(moved, sizeof moved, "%s/moved", inner);
    MUST(mkdir(inner, 0700) == 0 && rename(path, moved) == 0 && link(moved, path) == 0);
    MUST(unlink(moved) == 0 && rmdir(inner) == 0);
    MUST(unlink(path) == 0 && unlink(other) == 0);
}

static void sockets(const char *directory) {
    int pair[2], moved;
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    // a descriptor through a socket, as nginx, Chromium and systemd do
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x';
    struct iovec one = {&byte, 1};
    struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(head), &pair[0], sizeof(int));
    MUST(sendmsg(pair[0], &message, 0) == 1 && recvmsg(pair[1], &message, 0) == 1);
    memcpy(&moved, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    MUST(write(moved, "y", 1) == 1 && read(pair[1], &byte, 1) == 1 && byte == 'y');
    int named = socket(AF_UNIX, SOCK_DGRAM, 0), abstract = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "%s/socket", directory);
    MUST(bind(named, (struct sockaddr *)&at, sizeof at) == 0 && connect(named, (struct sockaddr *)&at, sizeof at) == 0);
    MUST(send(named, "z", 1, 0) == 1 && unlink(at.sun_path) == 0);
    // an abstract socket of this very tree
    at.sun_path[0] = 0;
    socklen_t length = sizeof at.sun_family + 1 + snprintf(at.sun_path + 1, 64, "programs-c-%d", getpid());
    MUST(bind(abstract, (struct sockaddr *)&at, length) == 0 && listen(abstract, 1) == 0);
    int caller = socket(AF_UNIX, SOCK_STREAM, 0);
    MUST(connect(caller, (struct sockaddr *)&at, length) == 0);
}

static void network(void) {
    struct ifaddrs *addresses;
    MUST(getifaddrs(&addresses) == 0);
    freeifaddrs(addresses);
    MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) >= 0);
    MUST(socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0) >= 0 || errno == EAFNOSUPPORT);
}

// An argument asks for POSIX queues, which not every kernel has.
int main(int count, char **arguments) {
    (void)arguments;
    char directory[] = "/tmp/programs-c-XXXXXX";
    MUST(mkdtemp(directory));
    setlinebuf(stdout);
    threads();
    puts("OK threads");
    children();
    puts("OK children");
    events();
    puts("OK events");
    memory();
    puts("OK memory");
    interprocess();
    puts("OK interprocess");
    if (count > 1) {
        queues();
        puts("OK queues");
    }
    files(directory);
    puts("OK files");
    sockets(directory);
    puts("OK sockets");
    network();
    puts("OK network");
    MUST(rmdir(directory) == 0);
    return 49;
}
