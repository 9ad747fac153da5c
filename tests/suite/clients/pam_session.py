"""Authenticates, opens a session, prints its environment, and leaves it open.

Arguments: service, user, password.
"""
import sys

import pypamtest

service, user, password = sys.argv[1:]
cases = [
    pypamtest.TestCase(pypamtest.PAMTEST_AUTHENTICATE),
    pypamtest.TestCase(pypamtest.PAMTEST_ACCOUNT),
    pypamtest.TestCase(pypamtest.PAMTEST_OPEN_SESSION),
    pypamtest.TestCase(pypamtest.PAMTEST_GETENVLIST),
]
pypamtest.run_pamtest(user, service, cases, [password])
print("\n".join("%s=%s" % pair for pair in sorted(cases[3].pam_env.items())))
