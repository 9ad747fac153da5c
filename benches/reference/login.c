/* What one login by PAM costs a program, by several services in turn; and what one comparison with a hash of crypt(3)'s
 * costs alone.
 *
 *     login logins ROUNDS USER PASSWORD SERVICE...    medians of pam_start, authenticate, account, pam_end
 *     login hash ROUNDS SETTING PASSWORD              median of crypt, with a salt that SETTING and the machine make;
 *                                                     then a hash that has this setting
 *
 * SETTING is a prefix and a cost, such as "$y$ 5". Times are nanoseconds, one a line. */
#define _GNU_SOURCE
#include <crypt.h>
#include <security/pam_appl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST_ROUNDS 2000
#define MOST_SERVICES 8

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

static long long median(long long *samples, int count)
{
    qsort(samples, (size_t)count, sizeof *samples, compare);
    return samples[count / 2];
}

static void die(const char *what)
{
    fprintf(stderr, "login: %s\n", what);
    exit(1);
}

static int answer(int count, const struct pam_message **messages, struct pam_response **answers, void *data)
{
    struct pam_response *all = calloc((size_t)count, sizeof *all);
    if (!all)
        return PAM_BUF_ERR;
    for (int i = 0; i < count; i++)
        if (messages[i]->msg_style == PAM_PROMPT_ECHO_OFF)
            all[i].resp = strdup(data);
    *answers = all;
    return PAM_SUCCESS;
}

static long long login(const char *service, const char *user, char *password)
{
    struct pam_conv conversation = {answer, password};
    pam_handle_t *handle;
    long long begun = now();
    if (pam_start(service, user, &conversation, &handle) != PAM_SUCCESS)
        die("pam_start");
    int result = pam_authenticate(handle, PAM_SILENT);
    if (result == PAM_SUCCESS)
        result = pam_acct_mgmt(handle, PAM_SILENT);
    if (result != PAM_SUCCESS) {
        fprintf(stderr, "login: %s: %s\n", service, pam_strerror(handle, result));
        exit(1);
    }
    pam_end(handle, result);
    return now() - begun;
}

int main(int argc, char **argv)
{
    static long long samples[MOST_SERVICES][MOST_ROUNDS];
    if (argc < 5)
        die("arguments");
    int rounds = atoi(argv[2]);
    if (rounds < 1 || rounds > MOST_ROUNDS)
        die("rounds");
    if (!strcmp(argv[1], "hash")) {
        char prefix[16];
        unsigned long cost;
        if (sscanf(argv[3], "%15s %lu", prefix, &cost) != 2)
            die("setting");
        const char *setting = crypt_gensalt(prefix, cost, NULL, 0);
        if (!setting)
            die("crypt_gensalt");
        char *salt = strdup(setting);
        const char *hash = NULL;
        for (int i = -1; i < rounds; i++) {
            long long begun = now();
            hash = crypt(argv[4], salt);
            if (!hash)
                die("crypt");
            if (i >= 0)
                samples[0][i] = now() - begun;
        }
        printf("%lld\n%s\n", median(samples[0], rounds), hash);
        return 0;
    }
    int services = argc - 5;
    if (services < 1 || services > MOST_SERVICES)
        die("services");
    /* In turn, so that what slows the machine down slows all. One round to warm up. */
    for (int i = -1; i < rounds; i++)
        for (int s = 0; s < services; s++) {
            long long took = login(argv[5 + s], argv[3], argv[4]);
            if (i >= 0)
                samples[s][i] = took;
        }
    for (int s = 0; s < services; s++)
        printf("%lld\n", median(samples[s], rounds));
    return 0;
}
