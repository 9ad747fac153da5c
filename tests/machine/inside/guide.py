"""guide.py FILE: runs what the guide's first section tells an administrator to type, as it is written there.

Each block marked `sh` of the section "From installation to the first job" is given to a shell, in order; CODE stands for
the code that a command before has printed. A command that fails ends it.
"""
import re
import subprocess
import sys

text = open(sys.argv[1], encoding="utf-8").read()
section = re.search(r"^## From installation to the first job$(.*?)^## ", text, re.M | re.S).group(1)
blocks = re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S)
assert len(blocks) >= 5, f"{len(blocks)} blocks"
code = None
for block in blocks:
    # Installed already, by the test before.
    if "apt install" in block:
        continue
    if "CODE" in block:
        assert code, "no command printed a code"
        block = block.replace("CODE", code)
    print(block, flush=True)
    done = subprocess.run(["bash", "-ec", block], capture_output=True, text=True)
    print(done.stdout, done.stderr, flush=True)
    done.check_returncode()
    for found in re.finditer(r"consent give (\S+)", done.stdout + done.stderr):
        code = found.group(1).strip("'\"`.,")
    last = done.stdout
assert "uid=" in last and "(ada)" in last, f"the last command does not show ada: {last}"
