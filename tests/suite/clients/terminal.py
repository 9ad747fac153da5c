"""Runs a program on a terminal of its own, as a person would: answers its question for a password, and types one line
into the shell that comes up.

    terminal.py PASSWORD LINE REFUSAL COMMAND [ARGUMENT...]

Prints what was said. Ends with the program's status; with 1 once it has said REFUSAL and would ask again; with 99 if it
waits for something else.
"""
import os
import pty
import select
import sys

password, line, refusal, *command = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
said = b""
to_come = [(b"assword", password), (b"$ ", line + "; exit")]
since = 0
while select.select([terminal], [], [], 60)[0]:
    try:
        part = os.read(terminal, 1000)
    except OSError:
        part = b""
    if not part:
        print(said.decode(errors="replace"))
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    said += part
    if to_come and to_come[0][0] in said[since:]:
        since = len(said)
        os.write(terminal, to_come.pop(0)[1].encode() + b"\n")
    if refusal.encode() in said:
        break
os.kill(pid, 9)
print(said.decode(errors="replace"))
sys.exit(1 if refusal.encode() in said else 99)
