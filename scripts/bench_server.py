"""A real etcd for the benches, plain and with mutual TLS at once, and its certificates."""

import http.client
import os
import pathlib
import signal
import subprocess
import sys
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

    def __init__(self, data, tls=None):
        self.tls = tls
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
            "--listen-peer-urls", f"http://127.0.0.1:{peer}", *more]

    def __enter__(self):
        start = time.monotonic()
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while time.monotonic() < start + 300 and self.process.poll() is None:
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
        sys.exit("etcd did not become healthy within five minutes")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)

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
