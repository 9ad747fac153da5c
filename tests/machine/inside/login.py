"""login.py [--login] NAME PASSWORD...: becomes NAME on a terminal of its own, and prints what `id` says there.

By su, or with --login by login, which only root may start. Each question for a password is answered with the next one.
"""
import os
import pty
import sys

words = sys.argv[1:]
by_login = words[0] == "--login"
name, *passwords = words[by_login:]
pid, terminal = pty.fork()
if pid == 0:
    command = ["login", name] if by_login else ["su", "-", name, "-c", "id"]
    os.execvp(command[0], command)
said, asked, typed = b"", 0, not by_login
while b"Login incorrect" not in said:
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
    if not typed and asked == len(passwords) and said.endswith(b"$ "):
        os.write(terminal, b"id; exit\n")
        typed = True
else:
    # It would ask for another name.
    os.kill(pid, 9)
print(said.decode(errors="replace"))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
