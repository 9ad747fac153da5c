"""Each entry point by libpam's own numbers, under libpam_wrapper.

Arguments: the right password, a wrong one, a new one. The account is "counted", without an OS account.
"""
import sys

import pypamtest as pam

good, wrong, better = sys.argv[1:]
AUTH, ACCOUNT, CHANGE = pam.PAMTEST_AUTHENTICATE, pam.PAMTEST_ACCOUNT, pam.PAMTEST_CHAUTHTOK
OPEN, CLOSE, SETCRED = pam.PAMTEST_OPEN_SESSION, pam.PAMTEST_CLOSE_SESSION, pam.PAMTEST_SETCRED
SERVICE_ERR, PERM_DENIED, AUTH_ERR, AUTHTOK_ERR, RECOVERY_ERR, CONV_ERR = 3, 6, 7, 20, 21, 19

CASES = [
    ("web", "counted", [wrong], [(AUTH, AUTH_ERR)]),
    ("web", "nobody-here", [good], [(AUTH, AUTH_ERR)]),
    ("web", "counted", [""], [(AUTH, AUTH_ERR)]),
    ("web", "nobody-here", [], [(ACCOUNT, PERM_DENIED)]),
    ("web", "root", [], [(ACCOUNT, PERM_DENIED)]),
    ("shell", "counted", [good], [(AUTH, AUTH_ERR)]),
    ("mapped", "counted", [], [(ACCOUNT, PERM_DENIED)]),
    ("other", "counted", [good], [(AUTH, SERVICE_ERR)]),
    ("wrong", "counted", [good], [(AUTH, SERVICE_ERR)]),
    ("web", "counted", [wrong, better, better], [(CHANGE, RECOVERY_ERR)]),
    ("web", "counted", [good, "short", "short", good, good, "", ""], [(CHANGE, AUTHTOK_ERR)]),
    ("web", "counted", [good], [(AUTH, 0), (ACCOUNT, 0), (SETCRED, 0), (OPEN, 0), (CLOSE, 0)]),
    ("web", "counted", [good, better, better], [(CHANGE, 0)]),
    ("web", "counted", [better], [(AUTH, 0)]),
]
for number, (service, user, answers, calls) in enumerate(CASES):
    try:
        pam.run_pamtest(user, service, [pam.TestCase(call, expected) for call, expected in calls], answers)
    except pam.PamTestError as error:
        sys.exit("case %d %s %s: %s" % (number, service, user, error))
print("%d cases" % len(CASES))
