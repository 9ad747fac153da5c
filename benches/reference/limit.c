/*
 * What a launch costs without Deputy: the references of deputy-bench.
 *
 *   limit bare|pam USER PROGRAM
 *
 * For each line "COUNT WIDTH" on standard input it starts PROGRAM COUNT times as USER, at most WIDTH at once, and
 * answers with one line: the nanoseconds that it took. It stays in between, as a long-lived launcher would.
 *
 *   bare  fork, initgroups, set the ids, exec, wait
 *   pam   the same with the PAM calls of a Deputy job, in a process of its own as PAM wants it: fork, pam_start,
 *         account, initgroups, setcred, open_session, fork, set the ids, exec, wait, close_session, setcred, pam_end
 */
#define _GNU_SOURCE
#include <grp.h>
#include <pwd.h>
#include <security/pam_appl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *user;
static char *program;
static uid_t uid;
static gid_t gid;

static int nobody(int count, const struct pam_message **messages, struct pam_response **answers, void *data)
{
    (void)count, (void)messages, (void)answers, (void)data;
    return PAM_CONV_ERR;
}

static void die(const char *what)
{
    fprintf(stderr, "limit: %s failed\n", what);
    _exit(99);
}

/* The groups are the process's own already. */
static void become_and_execute(void)
{
    gid_t groups[1024];
    int count = getgroups(1024, groups);
    if (count < 0 || setgroups(count, groups) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
        die("becoming the user");
    char *argv[] = {program, NULL};
    char *environment[] = {"PATH=/usr/bin:/bin", NULL};
    execve(program, argv, environment);
    die("execve");
}

static void bare(void)
{
    if (initgroups(user, gid))
        die("initgroups");
    become_and_execute();
}

static void with_pam(void)
{
    struct pam_conv conversation = {nobody, NULL};
    pam_handle_t *handle;
    if (pam_start("deputy-job", user, &conversation, &handle) != PAM_SUCCESS)
        die("pam_start");
    pam_set_item(handle, PAM_RUSER, "bench");
    pam_set_item(handle, PAM_TTY, "deputy");
    if (pam_acct_mgmt(handle, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK) != PAM_SUCCESS)
        die("pam_acct_mgmt");
    if (initgroups(user, gid))
        die("initgroups");
    if (pam_setcred(handle, PAM_ESTABLISH_CRED | PAM_SILENT) != PAM_SUCCESS)
        die("pam_setcred");
    if (pam_open_session(handle, PAM_SILENT) != PAM_SUCCESS)
        die("pam_open_session");
    int status;
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0)
        become_and_execute();
    if (waitpid(child, &status, 0) != child || status != 0)
        die("the program");
    pam_close_session(handle, PAM_SILENT);
    pam_setcred(handle, PAM_DELETE_CRED | PAM_SILENT);
    pam_end(handle, PAM_SUCCESS);
    _exit(0);
}

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void wait_for_one(void)
{
    int status;
    if (wait(&status) < 0 || status != 0)
        die("a launch");
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: limit bare|pam USER PROGRAM\n");
        return 2;
    }
    void (*launch)(void) = strcmp(argv[1], "pam") == 0 ? with_pam : bare;
    user = argv[2];
    program = argv[3];
    /* As Deputy's launcher does it, the look-up belongs to each launch; here once, in the reference's favour. */
    struct passwd *entry = getpwnam(user);
    if (!entry) {
        fprintf(stderr, "limit: no user %s\n", user);
        return 2;
    }
    uid = entry->pw_uid;
    gid = entry->pw_gid;
    long count, width;
    while (scanf("%ld %ld", &count, &width) == 2) {
        long running = 0;
        long long start = now();
        for (long done = 0; done < count; done++) {
            if (running == width) {
                wait_for_one();
                running--;
            }
            pid_t child = fork();
            if (child < 0)
                die("fork");
            if (child == 0)
                launch();
            running++;
        }
        while (running-- > 0)
            wait_for_one();
        printf("%lld\n", now() - start);
        fflush(stdout);
    }
    return 0;
}
