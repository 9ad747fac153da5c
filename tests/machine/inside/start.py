"""start.py [--kind KIND] ACCOUNT COMMAND...: asks for a job of the application demo and goes; prints its path.

Nothing is followed, so that what restarts meanwhile concerns the job alone. busctl, since a machine of the tests has no
D-Bus library for Python.
"""
import json
import subprocess
import sys

words = sys.argv[1:]
options = ["0"]
if words[0] == "--kind":
    options = ["1", "kind", "s", words[1]]
    words = words[2:]
account, argv = words[0], words[1:]
call = ["busctl", "--json=short", "call", "org.deputy.Deputy1", "/org/deputy/Deputy1", "org.deputy.Deputy1.Jobs"]
call += ["Run", "saaya{sv}", account, str(len(argv))]
for argument in argv:
    data = argument.encode()
    call += [str(len(data)), *map(str, data)]
call += options
answer = subprocess.run(call, check=True, capture_output=True, text=True).stdout
print(json.loads(answer)["data"][0])
