#!/usr/bin/env python3
"""shell.py container|vm: types into `make container-shell` or `make vm-shell` what a person would, and looks at what comes.

The machine has to come up with a root shell in which Deputy serves, and to go away with `systemctl poweroff`.
"""
import os
import pty
import select
import sys
import time

which = sys.argv[1]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("make", ["make", "--no-print-directory", f"{which}-shell"])
said = b""


def wait_for(what, seconds=900):
    """Until the machine has said this since the last time; the time is only an end to waiting for what does not come."""
    global said
    end = time.monotonic() + seconds
    while what not in said:
        if time.monotonic() > end or not select.select([terminal], [], [], end - time.monotonic())[0]:
            sys.exit(f"not ok {which}_shell waited in vain for {what!r}:\n{said[-2000:].decode(errors='replace')}")
        try:
            said += os.read(terminal, 4096)
        except OSError:
            sys.exit(f"not ok {which}_shell it ended:\n{said[-2000:].decode(errors='replace')}")
    said = said.split(what, 1)[1]


wait_for(b"~#")
# What is typed is echoed, so that the answer has to differ from it.
os.write(terminal, b"systemctl start deputyd; echo state-$(systemctl is-active deputyd)\n")
wait_for(b"state-active")
wait_for(b"~#")
os.write(terminal, b"deputyctl status; echo status-$?\n")
wait_for(b"status-0")
os.write(terminal, b"systemctl poweroff\n")
while True:
    try:
        if not os.read(terminal, 4096):
            break
    except OSError:
        break
os.waitpid(pid, 0)
print(f"ok {which}_shell")
