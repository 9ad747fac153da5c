"""Tries to reach a folder by every way that a program has, and says for each what came of it.

    python3 escape.py FOLDER OWN PID SOCKETNAME

FOLDER has what `launcher_confine.rs` put there, OWN is a folder that the job may change, PID a process of the same user
that works in FOLDER, SOCKETNAME an abstract socket that it listens at. Prints one line for each way: its name and `ok`,
or the name of the error.
"""
import ctypes
import errno
import os
import socket
import sys

folder, own, pid, abstract = sys.argv[1:5]
libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
SYS_OPENAT2, SYS_PIDFD_OPEN, SYS_PIDFD_GETFD, SYS_OPEN_TREE = 437, 434, 438, 428
SYS_FCHMODAT2, SYS_NAME_TO_HANDLE_AT, SYS_RENAMEAT2 = 452, 303, 316
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
IN_ACCESS, RENAME_EXCHANGE = 1, 2


def at(name):
    return os.path.join(folder, name)


def mine(name):
    return os.path.join(own, name)


def checked(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def touch(path):
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def connect(address, sort=socket.SOCK_STREAM):
    with socket.socket(socket.AF_UNIX, sort) as end:
        end.connect(address)


def bind(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.bind(path)
    os.unlink(path)


def rename_into():
    touch(mine("moved"))
    os.rename(mine("moved"), at("moved"))


def link_out():
    os.link(at("file"), mine("linked"))
    os.unlink(mine("linked"))


def link_in():
    touch(mine("to-link"))
    os.link(mine("to-link"), at("linked-in"))


def through_link():
    path = mine("link-to-it")
    os.symlink(folder, path)
    try:
        open(os.path.join(path, "file")).close()
    finally:
        os.unlink(path)


def dots():
    up = "../" * (own.count("/") + 2)
    open(os.path.join(own, up + at("file").lstrip("/"))).close()


def seize():
    checked(libc.ptrace(PTRACE_SEIZE, int(pid), None, None))
    # It must not be left stopped; a seized process never was.
    libc.ptrace(PTRACE_DETACH, int(pid), None, None)


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def read_memory():
    with open(f"/proc/{pid}/maps") as maps:
        start = int(maps.readline().split("-")[0], 16)
    buffer = ctypes.create_string_buffer(8)
    here = Iovec(ctypes.cast(buffer, ctypes.c_void_p), 8)
    there = Iovec(start, 8)
    checked(libc.process_vm_readv(int(pid), ctypes.byref(here), 1, ctypes.byref(there), 1, 0))


def steal_descriptor():
    handle = checked(libc.syscall(SYS_PIDFD_OPEN, int(pid), 0))
    checked(libc.syscall(SYS_PIDFD_GETFD, handle, 0, 0))


def user_namespace_mount():
    child = os.fork()
    if child == 0:
        try:
            checked(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
            checked(libc.mount(folder.encode(), own.encode(), None, 0x1000, None))
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    _, status = os.waitpid(child, 0)
    if status:
        number = os.waitstatus_to_exitcode(status)
        raise OSError(number, os.strerror(number))


def handle_of():
    buffer = (ctypes.c_uint * 40)(128, 0)
    mount = ctypes.c_int()
    checked(libc.syscall(SYS_NAME_TO_HANDLE_AT, AT_FDCWD, at("file").encode(), buffer, ctypes.byref(mount), 0))


def open_path(path):
    os.close(os.open(path, os.O_PATH))


class OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def open_newer():
    how = OpenHow(os.O_RDONLY, 0, 0)
    os.close(checked(libc.syscall(SYS_OPENAT2, AT_FDCWD, at("file").encode(), ctypes.byref(how), ctypes.sizeof(how))))


def open_tree():
    os.close(checked(libc.syscall(SYS_OPEN_TREE, AT_FDCWD, folder.encode(), 0)))


def chmod_newer():
    checked(libc.syscall(SYS_FCHMODAT2, AT_FDCWD, at("file").encode(), 0o640, 0))


def watch():
    handle = checked(libc.inotify_init())
    try:
        checked(libc.inotify_add_watch(handle, at("file").encode(), IN_ACCESS))
    finally:
        os.close(handle)


def exchange():
    touch(mine("to-exchange"))
    try:
        names = [mine("to-exchange").encode(), at("file").encode()]
        for _ in range(2):
            checked(libc.syscall(SYS_RENAMEAT2, AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE))
    finally:
        os.unlink(mine("to-exchange"))


def descriptor_chmod():
    handle = os.open(at("file"), os.O_RDONLY)
    try:
        os.fchmod(handle, 0o640)
    finally:
        os.close(handle)


WAYS = {
    "stat": lambda: os.stat(at("file")),
    "lstat": lambda: os.lstat(at("file")),
    "access": lambda: os.stat(folder) and None if os.access(at("file"), os.R_OK) else open(at("file")),
    "statfs": lambda: os.statvfs(folder),
    "read": lambda: open(at("file")).close(),
    "read-path-only": lambda: open_path(at("file")),
    "read-newer": open_newer,
    "tree": open_tree,
    "watch": watch,
    "list": lambda: os.listdir(folder),
    "readlink": lambda: os.readlink(at("link")),
    "read-attribute": lambda: os.listxattr(at("file")),
    "handle": handle_of,
    "write": lambda: os.close(os.open(at("file"), os.O_WRONLY)),
    "append": lambda: os.close(os.open(at("file"), os.O_WRONLY | os.O_APPEND)),
    "truncate-by-open": lambda: os.close(os.open(at("file"), os.O_WRONLY | os.O_TRUNC)),
    "truncate": lambda: os.truncate(at("file"), 0),
    "create": lambda: touch(at("new")),
    "create-unnamed": lambda: os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)),
    "make-folder": lambda: os.mkdir(at("new-folder")),
    "make-fifo": lambda: os.mkfifo(at("new-fifo")),
    "make-link": lambda: os.symlink("file", at("new-link")),
    "make-socket": lambda: bind(at("new-socket")),
    "chmod": lambda: os.chmod(at("file"), 0o640),
    "chmod-newer": chmod_newer,
    "chmod-by-descriptor": descriptor_chmod,
    "chown": lambda: os.chown(at("file"), -1, os.getgid()),
    "times": lambda: os.utime(at("file")),
    "set-attribute": lambda: os.setxattr(at("file"), "user.deputy", b"x"),
    "rename": lambda: (os.rename(at("file"), at("file2")), os.rename(at("file2"), at("file"))),
    "rename-into": rename_into,
    "exchange": exchange,
    "link-out": link_out,
    "link-in": link_in,
    "remove": lambda: os.unlink(at("to-remove")),
    "remove-folder": lambda: os.rmdir(at("folder")),
    "enter": lambda: (os.chdir(folder), os.chdir("/")),
    "execute": lambda: os.waitstatus_to_exitcode(os.posix_spawn(at("program"), ["program"], {}) and 0),
    "dots": dots,
    "through-own-link": through_link,
    "connect": lambda: connect(at("socket")),
    "connect-abstract": lambda: connect("\0" + abstract),
    "connect-bus": lambda: connect("/run/dbus/system_bus_socket"),
    "connect-owner-socket": lambda: connect("/run/deputy/owner.sock", socket.SOCK_SEQPACKET),
    "by-process-root": lambda: open(f"/proc/{pid}/root{at('file')}").close(),
    "by-process-folder": lambda: open(f"/proc/{pid}/cwd/file").close(),
    "by-process-descriptor": lambda: open(f"/proc/{pid}/fd/0").close(),
    "process-environment": lambda: open(f"/proc/{pid}/environ").read(),
    "process-memory": read_memory,
    "process-trace": seize,
    "process-take-descriptor": steal_descriptor,
    "process-signal": lambda: os.kill(int(pid), 0),
    "mount": user_namespace_mount,
}

for name, way in WAYS.items():
    try:
        way()
        print(name, "ok")
    except OSError as error:
        print(name, errno.errorcode.get(error.errno, error.errno))
