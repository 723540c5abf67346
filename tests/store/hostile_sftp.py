#!/usr/bin/env python3
"""An SFTP server (version 3) for sshd's `Subsystem` whose listings are hostile.

    hostile_sftp.py names      one directory with names that no directory has, then an end
    hostile_sftp.py endless    small names without an end
    hostile_sftp.py enormous   names of 200,000 bytes without an end
"""

import struct
import sys

INIT, CLOSE, LSTAT, OPENDIR, READDIR, REALPATH, STAT = 1, 4, 7, 11, 12, 16, 17
VERSION, STATUS, HANDLE, NAME, ATTRS = 2, 101, 102, 104, 105
OK, EOF, NO_SUCH_FILE, UNSUPPORTED = 0, 1, 2, 8
SIZE_AND_MODE = 0x1 | 0x4

HOSTILE = [
    b"", b".", b"..", b"../../etc/passwd", b"/etc/shadow", b"a/b", b"cluster\x1b[2Jnode", b"\n",
    b"\xff\xfe", b"backup-1\x00", b"-rf", b"name with blanks", b"n" * 256, b"n" * 100_000,
]


def text(data):
    return struct.pack(">I", len(data)) + data


def attrs(directory):
    mode = 0o040755 if directory else 0o100644
    return struct.pack(">IQI", SIZE_AND_MODE, 0, mode)


def entries(names, directory=False):
    body = b"".join(text(name) + text(name) + attrs(directory) for name in names)
    return struct.pack(">I", len(names)) + body


class Server:
    def __init__(self, kind):
        self.kind, self.root, self.reads = kind, None, 0

    def readdir(self):
        self.reads += 1
        if self.kind == "endless":
            return NAME, entries([b"f%d-%d" % (self.reads, i) for i in range(2000)])
        if self.kind == "enormous":
            return NAME, entries([b"n" * 200_000])
        if self.reads > 2:
            return STATUS, status(EOF)
        # As files and as directories.
        return NAME, entries(HOSTILE, directory=self.reads == 2)

    def answer(self, kind, body):
        if kind in (STAT, LSTAT):
            return ATTRS, attrs(True)
        if kind == REALPATH:
            return NAME, entries([body[4:]], directory=True)
        if kind == OPENDIR:
            self.root = self.root or body
            if body != self.root:
                # It was asked for what its names led to.
                print(f"asked for {body[4:]!r}", file=sys.stderr, flush=True)
                return STATUS, status(NO_SUCH_FILE)
            self.reads = 0
            return HANDLE, text(b"root")
        if kind == READDIR:
            return self.readdir()
        return STATUS, status(OK if kind == CLOSE else UNSUPPORTED)


def status(code):
    return struct.pack(">I", code) + text(b"") + text(b"")


def main():
    server, source, out = Server(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer
    while head := source.read(4):
        packet = source.read(struct.unpack(">I", head)[0])
        if packet[0] == INIT:
            answer = bytes([VERSION]) + struct.pack(">I", 3)
        else:
            kind, body = server.answer(packet[0], packet[5:])
            answer = bytes([kind]) + packet[1:5] + body
        out.write(text(answer))
        out.flush()


main()
