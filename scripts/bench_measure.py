"""How the benches measure a program: wall and CPU time, and its largest resident set."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def tool(name):
    folder = os.environ.get("ETCD_DR_ETCD_BINS")
    path = shutil.which(name, path=folder) if folder else shutil.which(name)
    if not path:
        sys.exit(f"{name} is neither in ETCD_DR_ETCD_BINS nor in PATH")
    return path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class PeakMemory(threading.Thread):
    """Largest resident set of a process, in MiB, as the kernel keeps it. What wait4 tells would
    count this interpreter in, which the process was for a moment after its fork."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.status = pathlib.Path(f"/proc/{pid}/status")
        self.mib = 0.0
        self.start()

    def run(self):
        while True:
            try:
                lines = self.status.read_text().splitlines()
            except OSError:
                return
            peak = [line for line in lines if line.startswith("VmHWM")]
            if not peak:
                return
            self.mib = max(self.mib, int(peak[0].split()[1]) / 1024)
            time.sleep(0.005)


def one(command, expected=0, **more):
    """Runs one program, which ends with the expected status: wall and CPU seconds, peak MiB, and what it printed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        start = time.monotonic()
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=errors, **more)
        peak = PeakMemory(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode(errors="replace")
        if process.returncode != expected:
            errors.seek(0)
            sys.exit(f"{command} failed:\n{text}\n{errors.read().decode(errors='replace')}")
    peak.join()
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": peak.mib, "text": text}


def several(*commands, **more):
    """Runs programs one after the other: what they took together, and the largest of them."""
    done = [one(command, **more) for command in commands]
    return {"wall": sum(d["wall"] for d in done), "cpu": sum(d["cpu"] for d in done),
            "rss": max(d["rss"] for d in done), "text": done[-1]["text"]}


def warm(path):
    """Reads a file, or all in a folder, into the page cache, and lets the disk become idle."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    for each in files:
        with open(each, "rb") as file:
            while file.read(1 << 24):
                pass
    os.sync()
