"""A real etcd for the benches, plain and with mutual TLS at once, and its certificates."""

import base64
import http.client
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import threading
import time

from bench_measure import free_port, tool


def certificates(folder):
    """A CA, and one certificate for both sides."""
    def run(*command):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    folder.mkdir(parents=True)
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    run("openssl", "req", "-x509", *ec, "-subj", "/CN=bench-ca",
        "-keyout", folder / "ca.key", "-out", folder / "ca.crt")
    run("openssl", "req", *ec, "-subj", "/CN=bench",
        "-keyout", folder / "peer.key", "-out", folder / "peer.csr")
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    run("openssl", "x509", "-req", "-in", folder / "peer.csr", "-CA", folder / "ca.crt",
        "-CAkey", folder / "ca.key", "-CAcreateserial", "-days", "30",
        "-extfile", folder / "ext", "-out", folder / "peer.crt")


class Server:
    """etcd on a data directory, from its being healthy until the end of the `with`."""

    def __init__(self, data, tls=None, flags=(), patience=300):
        self.tls = tls
        self.patience = patience
        self.ports = {"plain": free_port(), "tls": free_port()}
        peer = free_port()
        clients = f"http://127.0.0.1:{self.ports['plain']}"
        more = []
        if tls:
            clients += f",https://127.0.0.1:{self.ports['tls']}"
            more = ["--cert-file", tls / "peer.crt", "--key-file", tls / "peer.key",
                    "--client-cert-auth", "--trusted-ca-file", tls / "ca.crt"]
        self.command = [
            tool("etcd"), "--data-dir", data, "--quota-backend-bytes", str(24 << 30), "--log-level", "error",
            "--listen-client-urls", clients, "--advertise-client-urls", clients,
            "--listen-peer-urls", f"http://127.0.0.1:{peer}", *more, *flags]

    def __enter__(self):
        start = time.monotonic()
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while time.monotonic() < start + self.patience and self.process.poll() is None:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.ports["plain"], timeout=2)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    self.seconds = time.monotonic() - start
                    return self
            except OSError:
                pass
            time.sleep(0.02)
        self.__exit__()
        sys.exit(f"etcd did not become healthy within {self.patience} s")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=120)

    def access(self, mode):
        """Flags that etcdctl and etcd-dr have in common."""
        if mode == "plain":
            return [f"--endpoints=http://127.0.0.1:{self.ports['plain']}"]
        return [f"--endpoints=https://127.0.0.1:{self.ports['tls']}", f"--cacert={self.tls}/ca.crt",
                f"--cert={self.tls}/peer.crt", f"--key={self.tls}/peer.key"]

    def cpu(self):
        """Seconds of CPU that it has taken so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Writes(threading.Thread):
    """Puts a small value a hundred times a second, over etcd's JSON gateway, while the `with` lasts.

    Each write counts from the moment that it was due: one that waits behind a slow one was slow, too."""

    EVERY = 0.01

    def __init__(self, server):
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection("127.0.0.1", server.ports["plain"], timeout=30)
        self.ended = threading.Event()
        self.took, self.failure = [], None

    def run(self):
        encoded = lambda text: base64.b64encode(text).decode()
        due = time.monotonic()
        while not self.ended.is_set():
            body = json.dumps({"key": encoded(b"/bench/%03d" % (len(self.took) % 1000)), "value": encoded(b"v" * 256)})
            try:
                self.connection.request("POST", "/v3/kv/put", body)
                answer = self.connection.getresponse()
                text = answer.read()
            except OSError as failure:
                self.failure = failure
                return
            if answer.status != 200:
                self.failure = text
                return
            self.took.append(time.monotonic() - due)
            due += self.EVERY
            time.sleep(max(0, due - time.monotonic()))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()
        self.connection.close()
        if self.failure:
            sys.exit(f"a write failed: {self.failure}")

    def figures(self):
        """Milliseconds: half of the writes took less, all but one in a hundred, and the slowest."""
        cuts = statistics.quantiles(self.took, n=100, method="inclusive")
        return {"p50": cuts[49] * 1000, "p99": cuts[98] * 1000, "slowest": max(self.took) * 1000}
