"""Logs an account in through the D-Bus conversation, with nothing but D-Bus and the documented frames.

    login.py ACCOUNT ANSWER...

Prints each question, and the session's path at the end. Exit status 1 after a refusal.
"""
import socket
import struct
import sys

import dbus

account, answers = sys.argv[1], sys.argv[2:]
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

bus = dbus.SystemBus()
deputy = bus.get_object("org.deputy.Deputy1", "/org/deputy/Deputy1", introspect=False)
authentication = dbus.Interface(deputy, "org.deputy.Deputy1.Authentication")
conversation = authentication.Begin(
    account, "login", dbus.types.UnixFd(theirs), dbus.Dictionary({}, signature="sv")
)
theirs.close()


def frame():
    """The next frame: its letter and the rest. It has to be root's."""
    data, control, _, _ = ours.recvmsg(8193, socket.CMSG_SPACE(struct.calcsize("iII")))
    for level, kind, value in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            _, uid, _ = struct.unpack("iII", value)
            if uid == 0:
                return data[:1], data[1:]
    sys.exit("a frame that is not root's")


letter, rest = frame()
version, purpose, application, named, os_user, nonce = rest.split(b"\0")
if (letter, version, purpose, named.decode()) != (b"H", b"1", b"login", account):
    sys.exit("not the hello of this conversation")
print("hello:", application.decode(), named.decode(), os_user.decode())
ours.send(b"N" + nonce)
while True:
    letter, rest = frame()
    if letter in (b"P", b"Q"):
        print("asked:", rest.decode())
        if not answers:
            sys.exit("no answer is left")
        ours.send(b"A" + answers.pop(0).encode())
    elif letter in (b"I", b"E"):
        print("told:", rest.decode())
    elif letter == b"S":
        break
    else:
        print("refused:", rest.split(b"\0")[0].decode())
        sys.exit(1)
print("session:", authentication.Finish(conversation)["session"])
