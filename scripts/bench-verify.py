#!/usr/bin/env python3
"""Measures the check of a snapshot beside the tools that it replaces, in turn, on one machine.

Two databases of about a gigabyte come from a real etcd: many keys of the sizes that Kubernetes
has, put in random order and again and again, and few keys with large values. Others, of 1, 5 and 20
million revisions each of another key, are written by the example `make_store`. All are kept under
.cache/bench for the next time. Each round runs, in changing order and with the file in the page
cache, what checks it: `openssl dgst -sha256` (which uses the processor's SHA instructions; GNU
sha256sum 9.1 does not) and `etcdutl snapshot status`, one after the other, and etcd-dr. Printed are
medians, the ratio of the wall times, and peak memory.

    scripts/bench-verify.py [--rounds 5] [--files small,large,1M,5M,20M] [--cold]

etcd, etcdctl and etcdutl: from ETCD_DR_ETCD_BINS (a folder) or PATH. What is measured: the release
example `inspect`, or, with ETCD_DR=/path/to/etcd-dr, its whole `verify`.
"""

import argparse
import base64
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "target/release/examples"
REVISIONS = {"1M": (1_000_000, 900), "5M": (5_000_000, 150), "20M": (20_000_000, 60)}


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


class Server:
    def __init__(self, data):
        self.port, peer = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [tool("etcd"), "--name", "bench", "--data-dir", data, "--unsafe-no-fsync",
             "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
             "--listen-peer-urls", f"http://127.0.0.1:{peer}",
             "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
             "--initial-cluster", f"bench=http://127.0.0.1:{peer}",
             "--quota-backend-bytes", str(8 << 30), "--log-level", "error"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(300):
            try:
                self.call("/v3/maintenance/status", {})
                return
            except (OSError, RuntimeError):
                time.sleep(0.2)
        sys.exit("etcd did not become healthy within a minute")

    def call(self, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(answer)
        return json.loads(answer)

    def put(self, pairs):
        text = lambda b: base64.b64encode(b).decode()
        puts = [{"requestPut": {"key": text(k), "value": text(v)}} for k, v in pairs]
        return self.call("/v3/kv/txn", {"success": puts})

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


def fill_small(server):
    """About 350,000 keys of 0.3 to 6 KiB, an eighth of them written again, and a compaction."""
    rng = random.Random(1)
    noise = rng.randbytes(1 << 20)
    kinds = ["pods", "events", "secrets", "configmaps", "leases/kube-node-lease",
             "apps.example.com/things"]
    names = [f"/registry/{kinds[n % 6]}/namespace-{n % 311:03}/object-{n:08x}".encode()
             for n in range(350_000)]
    again = rng.sample(names, len(names) // 8)
    rng.shuffle(names)
    everything = names + again
    answer = None
    for start in range(0, len(everything), 100):
        pairs = {}
        for name in everything[start:start + 100]:
            size = int(rng.lognormvariate(7.5, 0.8)) % 6000 + 300
            at = rng.randrange(len(noise) - size)
            pairs[name] = noise[at:at + size]
        answer = server.put(pairs.items())
    revision = int(answer["header"]["revision"])
    server.call("/v3/kv/compaction", {"revision": str(revision - 200), "physical": True})


def fill_large(server):
    """950 values of a mebibyte."""
    rng = random.Random(2)
    for n in range(950):
        server.put([(f"/registry/blobs/{n}".encode(), rng.randbytes(1 << 20))])


def database(name, folder):
    path = folder / f"{name}.db"
    if path.exists():
        return path
    part = path.with_suffix(".part")
    if name in REVISIONS:
        count, size = REVISIONS[name]
        subprocess.run([EXAMPLES / "make_store", part, str(count), str(count), str(size)],
                       check=True)
    else:
        with tempfile.TemporaryDirectory(dir=folder) as data:
            server = Server(data)
            try:
                {"small": fill_small, "large": fill_large}[name](server)
                subprocess.run([tool("etcdctl"), f"--endpoints={server.url}", "snapshot", "save",
                                part, "--command-timeout=600s"],
                               check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            finally:
                server.stop()
    part.rename(path)
    return path


class PeakMemory(threading.Thread):
    """Largest resident set of a process, in MiB, as the kernel keeps it."""

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
            self.mib = int(peak[0].split()[1]) / 1024
            time.sleep(0.02)


def measure(command, path, cold):
    """Wall and CPU seconds, resident set in MiB, output."""
    if cold:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with tempfile.TemporaryFile() as out:
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        peak = PeakMemory(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        out.seek(0)
        text = out.read().decode()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{command} failed:\n{text}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": peak.mib, "text": text}


def etcd_dr(path):
    if binary := os.environ.get("ETCD_DR"):
        return [binary, "verify", path, "-o", "json"]
    return [EXAMPLES / "inspect", path]


def rounds(path, count, cold):
    commands = {"openssl": ["openssl", "dgst", "-sha256", path],
                "etcdutl": [tool("etcdutl"), "snapshot", "status", path, "-w", "json"],
                "etcd-dr": etcd_dr(path)}
    results = {name: [] for name in commands}
    for number in range(count + 1):
        order = list(commands) if number % 2 else ["etcd-dr", "openssl", "etcdutl"]
        for name in order:
            result = measure(commands[name], path, cold)
            if number:
                results[name].append(result)
    theirs = json.loads(results["etcdutl"][0]["text"])["hash"]
    if str(theirs) not in results["etcd-dr"][0]["text"]:
        sys.exit(f"{path}: etcd-dr does not find etcdutl's hash, {theirs}")
    return results


def row(name, path, results):
    median = lambda tool, key: statistics.median(run[key] for run in results[tool])
    walls = {tool: [run["wall"] for run in runs] for tool, runs in results.items()}
    pairs = [ours / (a + b) for ours, a, b in
             zip(walls["etcd-dr"], walls["openssl"], walls["etcdutl"])]
    peak = max(run["rss"] for run in results["etcd-dr"])
    keys = int(json.loads(results["etcd-dr"][0]["text"])["facts"]["distinctKeys"]) \
        if not os.environ.get("ETCD_DR") else 0
    bound = 64 + 16 * keys / 2**20
    cells = [name, f"{path.stat().st_size / 2**20:.0f}", f"{keys:,}"]
    cells += [f"{median(tool, 'wall'):.2f}" for tool in ("openssl", "etcdutl", "etcd-dr")]
    cells += [f"{statistics.median(pairs):.2f} ({min(pairs):.2f}-{max(pairs):.2f})"]
    cells += [f"{median(tool, 'cpu'):.2f}" for tool in ("openssl", "etcdutl", "etcd-dr")]
    cells += [f"{max(run['rss'] for run in results['etcdutl']):.0f}", f"{peak:.0f}",
              f"{bound:.0f}"]
    print("| " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", default="small,large,1M,5M,20M")
    parser.add_argument("--cold", action="store_true", help="drop the file from the page cache")
    parser.add_argument("--scratch", type=pathlib.Path, default=ROOT / ".cache/bench/verify")
    arguments = parser.parse_args()
    folder = arguments.scratch.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    version = subprocess.check_output([tool("etcd"), "--version"], text=True).splitlines()[0]
    print(f"{version}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
          f"median of {arguments.rounds}, {'cold' if arguments.cold else 'warm'}")
    print("| file | MiB | distinct keys | openssl s | etcdutl s | etcd-dr s | ratio (range) "
          "| openssl CPU s | etcdutl CPU s | etcd-dr CPU s | etcdutl MiB | etcd-dr MiB "
          "| allowed MiB |")
    print("| --- |" + " ---: |" * 12)
    for name in arguments.files.split(","):
        path = database(name, folder)
        row(name, path, rounds(path, arguments.rounds, arguments.cold))


if __name__ == "__main__":
    main()
