/* A foreign program that asks the name service, as the tests of libnss_deputy.so.2 want it asked.
 * It knows that account N of a test is poolNNNNN with uid and gid 60000+N, and is in group all (gid 59999). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define BASE 60000
#define ALL 59999
#define THREADS 8
#define CHECK(what, ...) \
    do { if (!(what)) { fprintf(stderr, "line %d: ", __LINE__); fprintf(stderr, __VA_ARGS__); fputc('\n', stderr); exit(1); } } while (0)

static int count;
static atomic_int stop;
static atomic_long asked;

static void one(int n, char *buffer, size_t size)
{
    char name[32];
    struct passwd pw, *found = NULL;
    struct group gr, *group = NULL;
    snprintf(name, sizeof name, "pool%05d", n);
    int error = getpwnam_r(name, &pw, buffer, size, &found);
    CHECK(found && pw.pw_uid == (uid_t)(BASE + n) && !strcmp(pw.pw_name, name), "%s by name: %s", name, strerror(error));
    error = getpwuid_r(BASE + n, &pw, buffer, size, &found);
    CHECK(found && pw.pw_gid == (gid_t)(BASE + n) && !strcmp(pw.pw_name, name), "%s by uid: %s", name, strerror(error));
    error = getgrgid_r(BASE + n, &gr, buffer, size, &group);
    CHECK(group && !strcmp(gr.gr_name, name) && gr.gr_mem[0] == NULL, "%s by gid: %s", name, strerror(error));
    error = getgrnam_r(name, &gr, buffer, size, &group);
    CHECK(group && gr.gr_gid == (gid_t)(BASE + n), "group %s by name: %s", name, strerror(error));
    gid_t gids[8];
    int room = 8;
    int got = getgrouplist(name, BASE + n, gids, &room);
    CHECK(got == 2 && gids[0] == (gid_t)(BASE + n) && gids[1] == ALL, "groups of %s: %d", name, got);
    snprintf(name, sizeof name, "nobody%d", n);
    error = getpwnam_r(name, &pw, buffer, size, &found);
    CHECK(!found && (error == 0 || error == ENOENT), "%s is there, or: %s", name, strerror(error));
    asked += 6;
}

static void *ask(void *seed)
{
    unsigned state = (unsigned)(size_t)seed;
    char buffer[4096];
    while (!stop)
        one((int)(rand_r(&state) % (unsigned)count), buffer, sizeof buffer);
    return NULL;
}

static void start(pthread_t *threads)
{
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, ask, (void *)(i + 1)) == 0, "no thread");
}

static void join(pthread_t *threads)
{
    stop = 1;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* Until standard input ends. */
static void threads(void)
{
    pthread_t all[THREADS];
    char byte;
    start(all);
    puts("running");
    fflush(stdout);
    while (read(0, &byte, 1) > 0) { }
    join(all);
    printf("%ld\n", asked);
}

/* Children of a program whose threads are in the middle of look-ups. */
static void forks(int times)
{
    pthread_t all[THREADS];
    char buffer[4096];
    start(all);
    for (int i = 0; i < times; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(60);
            for (int n = 0; n < 20; n++)
                one((i * 20 + n) % count, buffer, sizeof buffer);
            int seen = 0;
            setgrent();
            while (seen < 20 && getgrent())
                seen++;
            _exit(seen == 20 ? 0 : 2);
        }
        int status;
        CHECK(child > 0 && waitpid(child, &status, 0) == child, "no child");
        CHECK(status == 0, "child %d ended with %d", i, status);
    }
    join(all);
    /* Both go on where the enumeration was. */
    setpwent();
    for (int n = 0; n < 10; n++)
        getpwent();
    pid_t child = fork();
    for (int n = 10; n < count; n++) {
        struct passwd *pw = getpwent();
        CHECK(pw && pw->pw_uid == (uid_t)(BASE + n), "after the fork: %d", n);
    }
    if (child == 0)
        _exit(0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0, "the child: %d", status);
    printf("%ld\n", asked);
}

/* Threads that are cancelled wherever they are. */
static void cancels(int times)
{
    for (int i = 0; i < times; i++) {
        pthread_t thread;
        void *result;
        CHECK(pthread_create(&thread, NULL, ask, (void *)(size_t)(i + 1)) == 0, "no thread");
        usleep((useconds_t)(i * 37 % 900));
        pthread_cancel(thread);
        /* Those that have no cancellation point of their own end by the flag. */
        usleep(200);
        stop = 1;
        pthread_join(thread, &result);
        stop = 0;
    }
    printf("%ld\n", asked);
}

/* A program that closes what it does not know, and opens its own in the same places. */
static void closes(int times)
{
    char buffer[4096];
    for (int i = 0; i < times; i++) {
        one(i % count, buffer, sizeof buffer);
        if (i % 2)
            close_range(3, ~0U, 0);
        int own = open("/dev/null", O_RDONLY | O_CLOEXEC);
        one(i % count, buffer, sizeof buffer);
        CHECK(own < 0 || fcntl(own, F_GETFD) >= 0, "the module closed a foreign descriptor");
        int next = dup(own);
        CHECK(next == own + 1, "descriptors %d and %d: the module keeps one open", own, next);
        close(next);
        close(own);
    }
    printf("%ld\n", asked);
}

typedef int (*call)(const char *name, char *buffer, size_t size, char *text, size_t room);

static size_t print_group(const struct group *gr, char *text, size_t room)
{
    size_t used = (size_t)snprintf(text, room, "%s:%s:%u:", gr->gr_name, gr->gr_passwd, gr->gr_gid);
    for (char **member = gr->gr_mem; *member; member++)
        used += (size_t)snprintf(text + used, room - used, "%s%s", member == gr->gr_mem ? "" : ",", *member);
    return used;
}

static size_t print_account(const struct passwd *pw, char *text, size_t room)
{
    return (size_t)snprintf(text, room, "%s:%s:%u:%u:%s:%s:%s", pw->pw_name, pw->pw_passwd, pw->pw_uid, pw->pw_gid,
                            pw->pw_gecos, pw->pw_dir, pw->pw_shell);
}

#define ACCOUNT(name_, expression) \
    static int name_(const char *key, char *buffer, size_t size, char *text, size_t room) \
    { \
        (void)key; \
        struct passwd pw, *found = NULL; \
        int error = expression; \
        if (!error && found) print_account(found, text, room); \
        return error ? error : found ? 0 : ENOENT; \
    }
#define GROUP(name_, expression) \
    static int name_(const char *key, char *buffer, size_t size, char *text, size_t room) \
    { \
        (void)key; \
        struct group gr, *found = NULL; \
        int error = expression; \
        if (!error && found) print_group(found, text, room); \
        return error ? error : found ? 0 : ENOENT; \
    }
ACCOUNT(pwnam, getpwnam_r(key, &pw, buffer, size, &found))
ACCOUNT(pwuid, getpwuid_r((uid_t)atoi(key), &pw, buffer, size, &found))
ACCOUNT(pwent, getpwent_r(&pw, buffer, size, &found))
GROUP(grnam, getgrnam_r(key, &gr, buffer, size, &found))
GROUP(grgid, getgrgid_r((gid_t)atoi(key), &gr, buffer, size, &found))
GROUP(grent, getgrent_r(&gr, buffer, size, &found))

static const struct { const char *name; call call; } calls[] = {
    { "pwnam", pwnam }, { "pwuid", pwuid }, { "pwent", pwent },
    { "grnam", grnam }, { "grgid", grgid }, { "grent", grent },
};

/* Buffers of every size, which end where the memory ends, until one is large enough; at both alignments' extremes. */
static void sizes(const char *name, const char *key)
{
    call call = NULL;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (!strcmp(calls[i].name, name))
            call = calls[i].call;
    CHECK(call, "no call %s", name);
    size_t room = 1 << 20;
    char *memory = mmap(NULL, room + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *text = malloc(room);
    CHECK(memory != MAP_FAILED && text && mprotect(memory + room, 4096, PROT_NONE) == 0, "no memory");
    setpwent();
    setgrent();
    for (size_t size = 1; size < room; size++) {
        char *buffer = memory + room - size;
        /* What is before the buffer is not the callee's. */
        char *before = buffer > memory ? buffer - 1 : NULL;
        if (before)
            *before = 0x5a;
        int error = call(key, buffer, size, text, room);
        CHECK(!before || *before == 0x5a, "size %zu: a byte before the buffer was written", size);
        if (error == 0) {
            printf("%zu %s\n", size, text);
            free(text);
            return;
        }
        CHECK(error == ERANGE, "size %zu: %s", size, strerror(error));
    }
    CHECK(0, "no size is enough");
}

/* What the module itself says, without glibc's rules. */
static void status(const char *module, const char *name)
{
    void *library = dlopen(module, RTLD_NOW);
    CHECK(library, "%s", dlerror());
    int (*by_name)(const char *, struct passwd *, char *, size_t, int *) =
        (int (*)(const char *, struct passwd *, char *, size_t, int *))dlsym(library, "_nss_deputy_getpwnam_r");
    int (*by_id)(uid_t, struct passwd *, char *, size_t, int *) =
        (int (*)(uid_t, struct passwd *, char *, size_t, int *))dlsym(library, "_nss_deputy_getpwuid_r");
    int (*next)(struct passwd *, char *, size_t, int *) =
        (int (*)(struct passwd *, char *, size_t, int *))dlsym(library, "_nss_deputy_getpwent_r");
    int (*begin)(int) = (int (*)(int))dlsym(library, "_nss_deputy_setpwent");
    int (*group)(const char *, struct group *, char *, size_t, int *) =
        (int (*)(const char *, struct group *, char *, size_t, int *))dlsym(library, "_nss_deputy_getgrnam_r");
    int (*groups)(const char *, gid_t, long *, long *, gid_t **, long, int *) =
        (int (*)(const char *, gid_t, long *, long *, gid_t **, long, int *))dlsym(library, "_nss_deputy_initgroups_dyn");
    CHECK(by_name && by_id && next && begin && group && groups, "a symbol is missing");
    struct passwd pw;
    struct group gr;
    char buffer[65536];
    int error = 0;
    long start = 1, size = 1;
    gid_t *list = malloc(sizeof *list);
    int first = by_name(name, &pw, buffer, sizeof buffer, &error);
    int why = error;
    int second = by_id(BASE, &pw, buffer, sizeof buffer, &error);
    int third = begin(0);
    int fourth = next(&pw, buffer, sizeof buffer, &error);
    int fifth = group(name, &gr, buffer, sizeof buffer, &error);
    int sixth = groups(name, BASE, &start, &size, &list, 0, &error);
    printf("%d %d %d %d %d %d %s\n", first, second, third, fourth, fifth, sixth, first == 1 ? "-" : strerrorname_np(why));
    free(list);
}

static int (*next_account)(struct passwd *, char *, size_t, int *);
static atomic_int given[1 << 16];

static void *enumerate(void *unused)
{
    struct passwd pw;
    char buffer[1024];
    int error, status;
    while ((status = next_account(&pw, buffer, sizeof buffer, &error)) == 1)
        given[pw.pw_uid - BASE]++;
    CHECK(status == 0, "status %d", status);
    return unused;
}

/* Eight threads in one enumeration, without the lock that glibc would hold; how many accounts there were, each once. */
static void once(const char *module)
{
    void *library = dlopen(module, RTLD_NOW);
    CHECK(library, "%s", dlerror());
    next_account = (int (*)(struct passwd *, char *, size_t, int *))dlsym(library, "_nss_deputy_getpwent_r");
    CHECK(next_account, "a symbol is missing");
    pthread_t all[THREADS];
    int accounts = 0;
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&all[i], NULL, enumerate, NULL) == 0, "no thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(all[i], NULL);
    for (int n = 0; n < 1 << 16; n++) {
        CHECK(given[n] <= 1, "%d was given %d times", n, given[n]);
        accounts += given[n];
    }
    printf("%d\n", accounts);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 3, "usage: nss_probe threads|forks|cancels|closes ACCOUNTS [TIMES] | sizes CALL [KEY] | once MODULE | status MODULE NAME");
    const char *mode = argv[1];
    count = atoi(argv[2]);
    int times = argc > 3 ? atoi(argv[3]) : 0;
    if (!strcmp(mode, "threads"))
        threads();
    else if (!strcmp(mode, "forks"))
        forks(times);
    else if (!strcmp(mode, "cancels"))
        cancels(times);
    else if (!strcmp(mode, "closes"))
        closes(times);
    else if (!strcmp(mode, "sizes"))
        sizes(argv[2], argc > 3 ? argv[3] : "");
    else if (!strcmp(mode, "once"))
        once(argv[2]);
    else if (!strcmp(mode, "status"))
        status(argv[2], argc > 3 ? argv[3] : "");
    else
        CHECK(0, "no mode %s", mode);
    return 0;
}
