/* pam_probe SERVICE USER ANSWER STEP...: runs the steps in order and prints each one's result, and the groups
 * after those that set them. Every prompt gets ANSWER; texts go to stderr. */
#include <grp.h>
#include <pwd.h>
#include <security/pam_appl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *answer;

static int converse(int count, const struct pam_message **messages, struct pam_response **responses, void *data) {
    (void)data;
    *responses = calloc((size_t)count, sizeof **responses);
    for (int i = 0; i < count; i++) {
        int style = messages[i]->msg_style;
        fprintf(stderr, "%d: %s\n", style, messages[i]->msg);
        if (style == PAM_PROMPT_ECHO_OFF || style == PAM_PROMPT_ECHO_ON)
            (*responses)[i].resp = strdup(answer);
    }
    return PAM_SUCCESS;
}

static void print_groups(void) {
    gid_t groups[64];
    int count = getgroups(64, groups);
    for (int i = 0; i < count; i++) {
        struct group *group = getgrgid(groups[i]);
        printf(" %s", group ? group->gr_name : "?");
    }
}

static void print_session(pam_handle_t *handle) {
    struct rlimit limit;
    char uid[32] = "";
    char **list = pam_getenvlist(handle);
    FILE *file = fopen("/proc/self/loginuid", "r");
    if (file) {
        if (!fgets(uid, sizeof uid, file)) uid[0] = 0;
        fclose(file);
    }
    getrlimit(RLIMIT_NOFILE, &limit);
    mode_t mask = umask(0);
    printf(" loginuid=%s nofile=%lu umask=%03o", uid, (unsigned long)limit.rlim_max, (unsigned)mask);
    for (; list && *list; list++)
        printf(" %s", *list);
}

int main(int count, char **words) {
    if (count < 5) return 2;
    answer = words[3];
    struct pam_conv conversation = {converse, NULL};
    pam_handle_t *handle;
    if (pam_start(words[1], words[2], &conversation, &handle) != PAM_SUCCESS) return 3;
    pam_set_item(handle, PAM_RUSER, "demo");
    pam_set_item(handle, PAM_TTY, "deputy");
    for (int i = 4; i < count; i++) {
        const char *step = words[i];
        int result = PAM_ABORT;
        printf("%s:", step);
        if (!strcmp(step, "authenticate"))
            result = pam_authenticate(handle, PAM_DISALLOW_NULL_AUTHTOK);
        else if (!strcmp(step, "authenticate-null"))
            result = pam_authenticate(handle, 0);
        else if (!strcmp(step, "account"))
            result = pam_acct_mgmt(handle, PAM_DISALLOW_NULL_AUTHTOK);
        else if (!strcmp(step, "change"))
            result = pam_chauthtok(handle, PAM_CHANGE_EXPIRED_AUTHTOK);
        else if (!strcmp(step, "initgroups")) {
            result = initgroups(words[2], getpwnam(words[2])->pw_gid);
            print_groups();
        } else if (!strcmp(step, "establish")) {
            result = pam_setcred(handle, PAM_ESTABLISH_CRED);
            print_groups();
        } else if (!strcmp(step, "open")) {
            result = pam_open_session(handle, 0);
            print_session(handle);
        } else if (!strcmp(step, "close"))
            result = pam_close_session(handle, 0);
        else if (!strcmp(step, "delete"))
            result = pam_setcred(handle, PAM_DELETE_CRED);
        printf(" %d\n", result);
        fflush(stdout);
    }
    return pam_end(handle, PAM_SUCCESS) == PAM_SUCCESS ? 0 : 4;
}
