"""A file system that forgets what was open, as a file server does that was set up anew.

Speaks FUSE by itself, over /dev/fuse; run as root with the mount point. It has `root/file`, which can be read and written,
and `root/lost`, which nobody can look at. SIGUSR1 makes it forget: what is open by then is a stale handle (ESTALE), and what
is looked up afterwards is there as before. It says `ready`, and ends when it is unmounted.
"""

import ctypes
import errno
import os
import pwd
import signal
import struct
import sys

LOOKUP, FORGET, GETATTR, OPEN, READ, WRITE, STATFS = 1, 2, 3, 14, 15, 16, 17
RELEASE, FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, BATCH_FORGET = 18, 20, 25, 26, 27, 28, 29, 42
WITHOUT_ANSWER = (FORGET, BATCH_FORGET)
DONE = (RELEASE, FSYNC, FLUSH, RELEASEDIR)

FOLDER, FILE = 0o040755, 0o100644
ROOT, TEXT = 1, b"text"

generation = 1
owner = pwd.getpwnam("alice")


def forget(*_):
    global generation
    generation += 1


def node(number):
    """What a number stands for since the server began anew."""
    return generation * 100 + number


def attributes(number):
    top = number == ROOT
    mode = FILE if number == node(3) else FOLDER
    uid, gid = (0, 0) if top else (owner.pw_uid, owner.pw_gid)
    size = len(TEXT) if mode == FILE else 0
    return struct.pack("<6Q10I", number, size, 1, 0, 0, 0, 0, 0, 0, mode, 1, uid, gid, 0, 4096, 0)


def answer(opcode, number, body):
    """The body of an answer, or the number of an error."""
    if opcode == INIT:
        # Version 7.31; everything else as small as it may be.
        return struct.pack("<4I2H2I2H8I", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, *[0] * 8)
    if opcode == STATFS:
        return bytes(80)
    if number != ROOT and number // 100 != generation:
        return errno.ESTALE
    if opcode == LOOKUP:
        name = body.rstrip(b"\0")
        found = {(ROOT, b"root"): node(2), (node(2), b"file"): node(3)}.get((number, name))
        if found is None:
            return errno.ESTALE if name == b"lost" else errno.ENOENT
        return struct.pack("<4Q2I", found, generation, 0, 0, 0, 0) + attributes(found)
    if opcode == GETATTR:
        return struct.pack("<Q2I", 0, 0, 0) + attributes(number)
    if opcode in (OPEN, OPENDIR):
        return struct.pack("<Q2I", 0, 0, 0)
    if opcode == READ:
        offset, size = struct.unpack_from("<QI", body, 8)
        return TEXT[offset : offset + size]
    if opcode == WRITE:
        return struct.pack("<2I", struct.unpack_from("<I", body, 16)[0], 0)
    if opcode == READDIR or opcode in DONE:
        return b""
    return errno.ENOSYS


def main():
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"forgetful", sys.argv[1].encode(), b"fuse", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), "mount")
    signal.signal(signal.SIGUSR1, forget)
    print("ready", flush=True)
    while True:
        try:
            request = os.read(device, 1 << 17)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno == errno.ENOENT:
                continue
            raise
        _, opcode, unique, number = struct.unpack_from("<2I2Q", request)
        if opcode in WITHOUT_ANSWER:
            continue
        told = answer(opcode, number, request[40:])
        error, told = (-told, b"") if isinstance(told, int) else (0, told)
        os.write(device, struct.pack("<IiQ", 16 + len(told), error, unique) + told)


main()
