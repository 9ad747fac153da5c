/* What one question to the name service costs a program that asks many, through glibc as it is configured here.
 *
 *     nss NAMES COUNT UIDS
 *
 * Asks for accounts 0 to COUNT-1, which are called NAMESnnnnnnn and have uids from UIDS, and for as many that are not
 * there. Prints four medians in nanoseconds: hit by name, hit by uid, miss by name, miss by uid.
 *
 *     nss calls
 *
 * Asks the kernel what libnss_deputy.so.2 and glibc ask it for one hit, and computes nothing. Prints the median. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOST 20000
/* A service that reads everything at each question would take all day otherwise. */
#define ENOUGH 1500000000LL

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    long long x = *(const long long *)a, y = *(const long long *)b;
    return (x > y) - (x < y);
}

static long long measure(const char *names, unsigned count, unsigned uids, int by_name, int there)
{
    static long long samples[MOST];
    static char buffer[65536];
    char name[64];
    long long begin = now();
    int got = 0;
    srand(7);
    /* One to warm up, and at least three. */
    for (int i = -1; i < MOST && (i < 3 || now() - begin < ENOUGH); i++) {
        unsigned n = ((unsigned)rand() << 8 ^ (unsigned)rand()) % count;
        snprintf(name, sizeof name, "%s%07u%s", names, n, there ? "" : "x");
        /* Ids just behind the last one are within the range all the same. */
        uid_t uid = uids + n + (there ? 0 : count);
        struct passwd pw, *found = NULL;
        long long start = now();
        int error = by_name ? getpwnam_r(name, &pw, buffer, sizeof buffer, &found)
                            : getpwuid_r(uid, &pw, buffer, sizeof buffer, &found);
        long long end = now();
        if (!found != !there) {
            fprintf(stderr, "nss: %s, %u: %s\n", name, uid, found ? "there" : strerror(error));
            exit(1);
        }
        if (i >= 0)
            samples[got++] = end - start;
    }
    qsort(samples, (size_t)got, sizeof *samples, compare);
    return samples[got / 2];
}

/* Opens a file and looks at whose it is; or ends. */
static int open_file(const char *path, struct stat *status)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (file < 0 || fstat(file, status)) {
        fprintf(stderr, "nss: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    return file;
}

/* The calls of one hit: a header, a page, a record. Less than 0 if one failed. */
static ssize_t ask_the_kernel(unsigned page, unsigned record)
{
    static char header[272], bytes[256];
    struct stat status;
    ssize_t got = stat("/etc/nsswitch.conf", &status);
    int range = open_file("/var/lib/deputy/nss/range", &status);
    got |= pread(range, bytes, sizeof bytes, 0);
    close(range);
    int map = open_file("/var/lib/deputy/nss/map", &status);
    off_t pages = status.st_size / 256;
    got |= pread(map, header, sizeof header, 0);
    got |= pread(map, bytes, sizeof bytes, page % pages * 256);
    got |= pread(map, bytes, sizeof bytes, record % pages * 256);
    got |= stat("/etc/passwd", &status);
    close(map);
    return got;
}

static long long calls(void)
{
    static long long samples[MOST];
    ssize_t got = 0;
    srand(7);
    for (int i = -1; i < MOST; i++) {
        unsigned page = (unsigned)rand(), record = (unsigned)rand();
        long long start = now();
        got |= ask_the_kernel(page, record);
        if (i >= 0)
            samples[i] = now() - start;
    }
    if (got < 0) {
        fprintf(stderr, "nss: a call failed\n");
        exit(1);
    }
    qsort(samples, MOST, sizeof *samples, compare);
    return samples[MOST / 2];
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "calls")) {
        printf("%lld\n", calls());
        return 0;
    }
    if (argc != 4)
        return 2;
    unsigned count = (unsigned)atoi(argv[2]), uids = (unsigned)atoi(argv[3]);
    for (int there = 1; there >= 0; there--)
        for (int by_name = 1; by_name >= 0; by_name--)
            printf("%lld ", measure(argv[1], count, uids, by_name, there));
    puts("");
    return 0;
}
