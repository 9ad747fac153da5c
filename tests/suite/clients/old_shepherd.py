#!/usr/bin/env python3
"""old_shepherd.py JOB APPLICATION ACCOUNT NAME UID GID SPEAKS: the shepherd of a job, as another release had it.

SPEAKS is `unnamed` for version 1, whose greeting has no numbers, or OLDEST-NEWEST for a release of those versions. It runs
`sleep 1011` as UID, and ends it when told to. Each thing that it hears is a line on standard output. `end TEXT` on standard
input makes it write TEXT into the end record and leave.

It shares no line with Deputy's own code: what was agreed upon once is written down here a second time.
"""
import os
import select
import socket
import struct
import subprocess
import sys
import time

job, application, account, name, uid, gid, speaks = sys.argv[1:]
control = f"/run/deputy/jobs/{job}"
folder = f"/var/lib/deputy/jobs/{job}"
RUNNING = b"DPTY" + struct.pack("<H", 1) + b"\x08\x00"


def say(*words):
    print(*words, flush=True)


def varint(data):
    value = shift = 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    return value


listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(control)
listener.listen()
os.mkdir(folder, 0o700)
with open(f"{folder}/identity", "w", encoding="utf-8") as file:
    file.write(f'application = "{application}"\naccount = "{account}"\ncontrol = "{control}"\n')
    if speaks != "unnamed":
        file.write('something_new = "of a later release"\n')
    file.write(f'[os_account]\nname = "{name}"\nuid = {uid}\ngid = {gid}\n')
child = subprocess.Popen(["sleep", "1011"], user=int(uid), group=int(gid), extra_groups=[], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
listeners = []
say("ready")


def greet():
    connection, _ = listener.accept()
    greeting, descriptors, _, _ = socket.recv_fds(connection, 100, 4)
    if not greeting:
        return
    handed = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    say("greeted", len(greeting))
    if speaks == "unnamed":
        # It knows this one word, and closes the connection of whoever says another one.
        if greeting != b"adopt":
            return
        connection.send(b"adopted")
    else:
        oldest, newest = map(int, speaks.split("-"))
        theirs = struct.unpack("<HH", greeting[5:]) if len(greeting) == 9 else (1, 1)
        common = min(newest, theirs[1])
        if common < max(oldest, theirs[0]):
            connection.send(b"refused" + struct.pack("<HH", oldest, newest))
            return
        connection.send(b"adopted" + struct.pack("<H", common))
    for own in handed:
        version = 1 if speaks == "unnamed" else common
        try:
            own.send(RUNNING[:4] + struct.pack("<H", version) + RUNNING[6:])
        except BrokenPipeError:
            pass  # It has gone already. What it said before is there to be read.
        listeners.append(own)


def hear(connection):
    try:
        packet = connection.recv(1000)
    except ConnectionResetError:
        # The other end went without reading that the job runs. The kernel says so once, before what it had sent.
        packet = connection.recv(1000)
    if not packet:
        listeners.remove(connection)
        return
    version, kind = struct.unpack("<H", packet[4:6])[0], packet[6]
    if kind == 0:
        say("cancel", varint(packet[7:]), "in", version)
        child.terminate()
    elif kind == 1:
        number = varint(packet[7:])
        say("signal", (number >> 1) ^ -(number & 1), "in", version)
    else:
        say("unknown", kind, "in", version)
        listeners.remove(connection)


def leave(text):
    child.kill()
    child.wait()
    with open(f"{folder}/exit.new", "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(f"{folder}/exit.new", f"{folder}/exit")
    os.unlink(control)
    sys.exit()


while True:
    ready, _, _ = select.select([listener, sys.stdin, *listeners], [], [], 120)
    if not ready:
        leave("")
    for one in ready:
        if one is listener:
            greet()
        elif one is sys.stdin:
            line = sys.stdin.readline()
            if not line.startswith("end "):
                leave("")
            header = f'job = "{job}"\nended_us = {time.time_ns() // 1000}\n'
            leave(header + line[4:].replace("|", "\n"))
        else:
            hear(one)
