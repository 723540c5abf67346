#!/usr/bin/env python3
"""Measures etcd-dr's snapshot beside `etcdctl snapshot save`, in turn, on one machine.

A real etcd is filled with about a gigabyte (kept under .cache/bench for the next time) and
listens with and without mutual TLS. Each round runs both tools, in changing order, after a
`sync`, with the database in the page cache; one unmeasured round goes first. Printed are medians
of wall time, of CPU time (user + system) of the tool and of the server meanwhile, and the largest
resident set.

    scripts/bench-backup.py [--rounds 7] [--size-mib 1000] [--modes plain,tls]

etcd and etcdctl: from ETCD_DR_ETCD_BINS (a folder) or PATH. etcd-dr: target/release/etcd-dr, or
ETCD_DR; its whole `backup` of an OpenShift node. "before check" leaves out the time that reading
the snapshot back and checking it took, of which `etcdctl snapshot save` has no counterpart.
"""

import argparse
import base64
import concurrent.futures
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
VALUE = 512 * 1024


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


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def certificates(folder):
    """A CA, and one certificate for both sides."""
    if (folder / "peer.crt").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"]
    run("openssl", "req", "-x509", *ec, "-subj", "/CN=bench-ca",
        "-keyout", folder / "ca.key", "-out", folder / "ca.crt")
    run("openssl", "req", *ec, "-subj", "/CN=bench",
        "-keyout", folder / "peer.key", "-out", folder / "peer.csr")
    (folder / "ext").write_text(
        "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    run("openssl", "x509", "-req", "-in", folder / "peer.csr", "-CA", folder / "ca.crt",
        "-CAkey", folder / "ca.key", "-CAcreateserial", "-days", "3650",
        "-extfile", folder / "ext", "-out", folder / "peer.crt")


class Server:
    def __init__(self, data, tls):
        self.plain, self.tls, peer = free_port(), free_port(), free_port()
        self.log = open(data.parent / "etcd.log", "ab")
        clients = f"http://127.0.0.1:{self.plain},https://127.0.0.1:{self.tls}"
        self.process = subprocess.Popen(
            [tool("etcd"), "--name", "bench", "--data-dir", data,
             "--listen-client-urls", clients, "--advertise-client-urls", clients,
             "--listen-peer-urls", f"http://127.0.0.1:{peer}",
             "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
             "--initial-cluster", f"bench=http://127.0.0.1:{peer}",
             "--cert-file", tls / "peer.crt", "--key-file", tls / "peer.key",
             "--client-cert-auth", "--trusted-ca-file", tls / "ca.crt",
             "--quota-backend-bytes", str(4 << 30), "--log-level", "warn"],
            stdout=self.log, stderr=self.log)
        self.wait()

    def wait(self):
        for _ in range(300):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.plain, timeout=2)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        self.stop()
        sys.exit("etcd did not become healthy within a minute")

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1]
        fields = fields.split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)
        self.log.close()

    def fill(self, mib):
        def put(worker, count):
            connection = http.client.HTTPConnection("127.0.0.1", self.plain, timeout=60)
            rng = random.Random(worker)
            for index in range(count):
                body = json.dumps({
                    "key": base64.b64encode(f"bench/{worker}/{index}".encode()).decode(),
                    "value": base64.b64encode(rng.randbytes(VALUE)).decode()})
                connection.request("POST", "/v3/kv/put", body)
                response = connection.getresponse()
                answer = response.read()
                if response.status != 200:
                    raise RuntimeError(answer)

        workers = 4
        count = mib * 1024 * 1024 // VALUE // workers
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda worker: put(worker, count), range(workers)))


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
            self.mib = int(peak[0].split()[1]) / 1024
            time.sleep(0.05)


def measure(server, command):
    """Wall, CPU of the tool, CPU of the server, resident set in MiB, output."""
    os.sync()
    server_before = server.cpu()
    with tempfile.TemporaryFile() as out:
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=out)
        peak = PeakMemory(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        out.seek(0)
        text = out.read().decode(errors="replace")
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{command} failed:\n{text}")
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "server": server.cpu() - server_before,
        "rss": peak.mib,
        "text": text,
    }


def etcdctl(server, mode, tls, target):
    command = [tool("etcdctl"), "--command-timeout=600s"]
    if mode == "tls":
        command += [f"--endpoints=https://127.0.0.1:{server.tls}", f"--cacert={tls}/ca.crt",
                    f"--cert={tls}/peer.crt", f"--key={tls}/peer.key"]
    else:
        command += [f"--endpoints=http://127.0.0.1:{server.plain}"]
    return command + ["snapshot", "save", target / "etcdctl.db"]


def etcd_dr(server, mode, tls, target):
    """The whole backup of an OpenShift node: snapshot, archives, fsync, and the check of it all.

    The made-up cluster has no ClusterOperators, hence --force."""
    root = tls.parent / "node"
    if not root.exists():
        run(sys.executable, ROOT / "fixtures/make-node.py", "--nodes", "master-0=127.0.0.1", root)
    endpoint = (f"https://127.0.0.1:{server.tls}" if mode == "tls"
                else f"http://127.0.0.1:{server.plain}")
    command = [os.environ.get("ETCD_DR", ROOT / "target/release/etcd-dr"), "--progress", "never",
               "-o", "json", "--root", root, "--node-name", "master-0", "--endpoints", endpoint]
    if mode == "tls":
        command += ["--cacert", tls / "ca.crt", "--cert", tls / "peer.crt",
                    "--key", tls / "peer.key"]
    return command + ["backup", "--force", target / "store"]


def rounds(server, mode, tls, scratch, count):
    results = {"etcdctl": [], "etcd-dr": []}
    tools = [("etcdctl", etcdctl), ("etcd-dr", etcd_dr)]
    for number in range(count + 1):
        for name, command in tools if number % 2 else reversed(tools):
            target = pathlib.Path(tempfile.mkdtemp(dir=scratch))
            result = measure(server, command(server, mode, tls, target))
            if name == "etcd-dr":
                # What etcdctl has no counterpart of: the file read back and checked whole.
                text = result["text"]
                check = json.loads(text[text.index("{"):])["seconds"]["check"]
                result["unchecked"] = result["wall"] - check
            else:
                result["unchecked"] = result["wall"]
            if number:
                results[name].append(result)
            if os.environ.get("BENCH_VERBOSE"):
                print(mode, name, {k: v for k, v in result.items() if k != "text"},
                      result["text"].strip()[-400:] if name == "etcd-dr" else "")
            shutil.rmtree(target)
    return results


def table(mode, results):
    row = "| {:5} | {:8} | {:>13} | {:>8} | {:>11} | {:>10} | {:>10} | {:>8} |"
    medians = {}
    for name, runs in results.items():
        medians[name] = {key: statistics.median(run[key] for run in runs)
                         for key in ("unchecked", "wall", "cpu", "server")}
        best, worst = min(run["wall"] for run in runs), max(run["wall"] for run in runs)
        print(row.format(mode, name, f"{medians[name]['unchecked']:.2f}",
                         f"{medians[name]['wall']:.2f}", f"{best:.2f}-{worst:.2f}",
                         f"{medians[name]['cpu']:.2f}", f"{medians[name]['server']:.2f}",
                         f"{max(run['rss'] for run in runs):.0f}"))
    pairs = [ours["wall"] / theirs["wall"]
             for ours, theirs in zip(results["etcd-dr"], results["etcdctl"])]
    ratio = {key: medians["etcd-dr"][key] / medians["etcdctl"][key] for key in medians["etcdctl"]}
    print(row.format(mode, "ratio", f"{ratio['unchecked']:.2f}", f"{ratio['wall']:.2f}",
                     f"{min(pairs):.2f}-{max(pairs):.2f}", f"{ratio['cpu']:.2f}",
                     f"{ratio['server']:.2f}", ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size-mib", type=int, default=1000)
    parser.add_argument("--modes", default="plain,tls")
    parser.add_argument("--scratch", type=pathlib.Path, default=ROOT / ".cache/bench")
    arguments = parser.parse_args()

    base = arguments.scratch.resolve() / f"{arguments.size_mib}-mib"
    tls = arguments.scratch.resolve() / "tls"
    certificates(tls)
    base.mkdir(parents=True, exist_ok=True)
    filled = base / "filled"
    if not filled.exists():
        shutil.rmtree(base / "data", ignore_errors=True)
    server = Server(base / "data", tls)
    try:
        if not filled.exists():
            server.fill(arguments.size_mib)
            filled.touch()
        size = (base / "data/member/snap/db").stat().st_size
        print(f"{subprocess.check_output([tool('etcd'), '--version'], text=True).splitlines()[0]}, "
              f"database {size / 2**20:.0f} MiB, {os.cpu_count()} CPUs, "
              f"load {os.getloadavg()[0]:.1f}, median of {arguments.rounds}")
        header = "| {:5} | {:8} | {:>13} | {:>8} | {:>11} | {:>10} | {:>10} | {:>8} |"
        print(header.format("", "", "before check s", "whole s", "range s", "tool cpu s", "etcd cpu s", "RSS MiB"))
        print(header.format("---", "---", "---:", "---:", "---:", "---:", "---:", "---:"))
        scratch = pathlib.Path(tempfile.mkdtemp(dir=base))
        try:
            for mode in arguments.modes.split(","):
                table(mode, rounds(server, mode, tls, scratch, arguments.rounds))
        finally:
            shutil.rmtree(scratch)
    finally:
        server.stop()


main()
