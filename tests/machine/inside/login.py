"""login.py NAME PASSWORD...: becomes NAME by su on a terminal of its own, and prints what `id` says there.

Each question for a password ("Password:", "Password for desk:") is answered with the next one.
"""
import os
import pty
import sys

name, *passwords = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("su", ["su", "-", name, "-c", "id"])
said, asked = b"", 0
while True:
    try:
        part = os.read(terminal, 1000)
    except OSError:
        break
    if not part:
        break
    said += part
    while asked < min(said.count(b"assword"), len(passwords)):
        os.write(terminal, passwords[asked].encode() + b"\n")
        asked += 1
print(said.decode(errors="replace"))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
