"""A database of some gigabytes and a long tail of small changes behind it: etcd's own replay of the tail beside
`restore --roll-forward`. Called by scripts/bench-moments.py."""

import base64
import json
import os
import shutil
import socket
import statistics
import subprocess
import threading

from bench_measure import one, tool, warm
from bench_server import Server
from bench_tables import publish

BASE_VALUE, CHANGE_VALUE, PAGE = 1900, 100, 4096
# Puts in one transaction while the database is filled; etcd accepts 128.
GROUP = 100
WRITERS = 32
# Requests that are sent before their answers are read.
AHEAD = 64
# Written once a member is filled, and once it is changed.
FILLED, READY = "filled.json", "ready.json"


def key(number):
    return base64.b64encode(b"/registry/configmaps/project-%05d/data-%07d" % (number // 100, number)).decode()


def value(size):
    return base64.b64encode(os.urandom(size)).decode()


def request(path, body):
    text = json.dumps(body)
    return f"POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


def answer(stream):
    """Reads one answer: whether its status is 200."""
    status, length, chunked = stream.readline(), 0, False
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, told = line.lower().partition(b":")
        length = int(told) if name == b"content-length" else length
        chunked = chunked or (name == b"transfer-encoding" and b"chunked" in told)
    while chunked and (size := int(stream.readline(), 16)):
        stream.read(size + 2)
    stream.read(2 if chunked else length)
    return status.startswith(b"HTTP/1.1 200")


def send(port, count, make):
    """Sends so many requests over several connections; fails unless each is answered with 200."""
    sent = []

    def writer(number):
        mine = range(number, count, WRITERS)
        with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            stream = connection.makefile("rb")
            for first in range(0, len(mine), AHEAD):
                some = mine[first:first + AHEAD]
                connection.sendall(b"".join(make(each) for each in some))
                if not all([answer(stream) for _ in some]):
                    return
        sent.append(len(mine))

    writers = [threading.Thread(target=writer, args=(number,)) for number in range(WRITERS)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    if sum(sent) != count:
        raise SystemExit("a write failed")


def fill(folder, asked):
    """Fills a member and takes a snapshot of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # Two values and their elements fill a page.
    keys, data = (asked.mib << 20) // PAGE * 2 // GROUP * GROUP, folder / "data"
    # A raft snapshot close to the end, so that a start does not read what the database holds anyway.
    flags = ["--unsafe-no-fsync", "--snapshot-count", "200", "--max-wals", "2"]

    def group(number):
        puts = ({"requestPut": {"key": key(each), "value": value(BASE_VALUE)}}
                for each in range(number * GROUP, number * GROUP + GROUP))
        return request("/v3/kv/txn", {"success": list(puts)})

    with Server(data, flags=flags) as server:
        send(server.ports["plain"], keys // GROUP, group)
        one([tool("etcdctl"), *server.access("plain"), "--command-timeout=300s", "snapshot", "save",
             folder / "snapshot.db"], env={**os.environ, "ETCDCTL_API": "3"})
    # The start that is measured replays onto the database as it is now.
    shutil.copy(data / "member/snap/db", folder / "early.db")
    (folder / FILLED).write_text(json.dumps({"keys": keys, "mib": asked.mib}))


def change(folder, asked):
    """Writes the changes, each a put and an entry of its own."""
    filled = json.loads((folder / FILLED).read_text())
    keys, data = filled["keys"], folder / "data"
    flags = ["--unsafe-no-fsync", "--snapshot-count", "100000000", "--max-wals", "0", "--max-snapshots", "0"]
    with Server(data, flags=flags) as server:
        # A prime steps through the keys in an order that is not that of their names.
        send(server.ports["plain"], asked.changes,
             lambda number: request("/v3/kv/put", {"key": key(number * 7919 % keys), "value": value(CHANGE_VALUE)}))
    (folder / READY).write_text(json.dumps(filled | {"changes": asked.changes}))


def measure(folder, asked, etcd_dr):
    """Rows of the table: etcd's start with the tail to replay, and etcd-dr's roll-forward of it."""
    made_of = json.loads((folder / READY).read_text())
    starts, rolls, hashes = [], [], set()
    for number in range(asked.rounds):
        again = folder / "again"
        shutil.rmtree(again, ignore_errors=True)
        shutil.copytree(folder / "data", again)
        shutil.copy(folder / "early.db", again / "member/snap/db")
        warm(again)
        more = ["--snapshot-count", "100000000"]
        with Server(again, flags=more, patience=600) as server:
            starts.append(server.seconds)
            if not number:
                hashes.add(hash_kv(server))
        shutil.rmtree(again)
        made = folder / "made"
        shutil.rmtree(made, ignore_errors=True)
        warm(folder / "snapshot.db")
        warm(folder / "data")
        rolls.append(one([etcd_dr, "--progress", "never", "restore", folder / "snapshot.db", "--data-dir", made,
                          "--roll-forward", folder / "data", "--bump-revision", "0", "-o", "json"]))
        applied = json.loads(rolls[-1]["text"])["rollForward"]["entries"]
        if applied < made_of["changes"]:
            raise SystemExit(f"{applied} entries of {made_of['changes']} were applied")
        if not number:
            with Server(made, flags=more) as server:
                hashes.add(hash_kv(server))
        shutil.rmtree(made)
    if len(hashes) != 1:
        raise SystemExit(f"the two have different HashKVs: {hashes}")
    ours, theirs = statistics.median(roll["wall"] for roll in rolls), statistics.median(starts)
    cpu = statistics.median(roll["cpu"] for roll in rolls)
    memory, allowed = max(roll["rss"] for roll in rolls), 64 + 16 * made_of["keys"] / (1 << 20)
    what = f"{made_of['changes']:,} changes of {CHANGE_VALUE} bytes onto {made_of['mib']:,} MiB with {made_of['keys']:,} keys"
    return [[f"etcd's start, which replays {what}", f"{theirs:.1f}", "", "", "", ""],
            ["`restore --roll-forward` of the same WAL", f"{ours:.1f}", f"{ours / theirs:.2f}", f"{cpu:.1f}",
             f"{memory:.0f}", f"{allowed:.0f}"]]


HEAD = ["operation", "s", "ratio", "CPU s", "peak MiB", "allowed"]


def hash_kv(server):
    """HashKV of all, as etcdctl gets it."""
    done = subprocess.run([tool("etcdctl"), *server.access("plain"), "--command-timeout=120s", "endpoint", "hashkv",
                           "-w", "json"], check=True, capture_output=True, env={**os.environ, "ETCDCTL_API": "3"})
    told = json.loads(done.stdout)[0]["HashKV"]
    return told["header"]["revision"], told["hash"]


def run(folder, asked, etcd_dr):
    """One of the three steps."""
    busy = os.getloadavg()[0]
    if asked.million == "fill":
        fill(folder, asked)
    elif asked.million == "change":
        change(folder, asked)
    else:
        rows = measure(folder, asked, etcd_dr)
        publish("performance-tables.md", "million", HEAD, rows, asked, busy)
