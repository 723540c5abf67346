#!/usr/bin/env python3
"""What a test asks of the node's API server, and a client that holds a cache.

usage: api.py ready
       api.py create NAME | delete NAME
       api.py list [cached]       names and versions; cached: as the API server's own cache has it
       api.py follow FILE         lists, watches, and writes its cache to FILE at each change
       api.py timeline            prints "watching", then, once the API is ready after a manifest
                                  has gone, when what happened: JSON, in seconds since that
"""
import functools
import http.client
import json
import os
import ssl
import sys
import time

# Of the token file that the API server is started with (image.rs).
TOKEN = {"Authorization": "Bearer test"}
MANIFESTS = "/etc/kubernetes/manifests"
REAL = "/var/log/kube-apiserver/real/"
LIMIT = 300
# Seconds between two looks of the timeline: what it asks must not slow down what it times.
LOOK = 0.05
COLLECTION = "/api/v1/namespaces/default/configmaps"


@functools.cache
def anybody():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connect(timeout=5):
    return http.client.HTTPSConnection("127.0.0.1", 6443, timeout=timeout, context=anybody())


def ask(method, path, body=None):
    connection = connect()
    headers = {"Content-Type": "application/json", **TOKEN}
    connection.request(method, path, body and json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 300:
        raise OSError(f"{method} {path}: {answer.status} {text[:200]!r}")
    return text


def listed(query=""):
    found = json.loads(ask("GET", COLLECTION + query))
    items = {i["metadata"]["name"]: i["metadata"]["resourceVersion"] for i in found["items"]}
    return items, found["metadata"]["resourceVersion"]


class Compacted(Exception):
    pass


def show(file, cache):
    with open(file + ".new", "w") as out:
        json.dump(cache, out)
    os.rename(file + ".new", file)


def watch(file, cache, version):
    """Follows from a version until the connection ends; says from where to go on."""
    connection = connect(timeout=3600)
    connection.request("GET", f"{COLLECTION}?watch=true&allowWatchBookmarks=true&resourceVersion={version}", headers=TOKEN)
    answer = connection.getresponse()
    if answer.status == 410:
        raise Compacted
    if answer.status != 200:
        raise OSError(answer.status)
    for line in answer:
        event = json.loads(line)
        thing = event["object"]
        if event["type"] == "ERROR":
            if thing.get("code") == 410:
                raise Compacted
            raise OSError(thing)
        version = thing["metadata"]["resourceVersion"]
        name = thing["metadata"].get("name")
        if event["type"] == "DELETED":
            cache.pop(name, None)
        elif event["type"] != "BOOKMARK":
            cache[name] = version
        show(file, cache)
        yield version


def follow(file):
    version, cache = None, {}
    while True:
        try:
            if version is None:
                cache, version = listed("?resourceVersion=0")
                show(file, cache)
            for version in watch(file, cache, version):
                pass
        except Compacted:
            version = None
        except (OSError, http.client.HTTPException, ValueError):
            pass
        time.sleep(0.2)


def programs():
    """The names of all programs that run."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm") as name:
                found.add(name.read().strip())
        except OSError:
            pass
    return found


@functools.cache
def etcds_client():
    context = ssl.create_default_context(cafile=REAL + "ca.crt")
    context.check_hostname = False
    context.load_cert_chain(REAL + "client.crt", REAL + "client.key")
    return context


def etcd_serves():
    connection = http.client.HTTPSConnection("127.0.0.1", 2379, timeout=1, context=etcds_client())
    connection.request("GET", "/health")
    return json.loads(connection.getresponse().read()).get("health") == "true"


def api_ready():
    return bool(ask("GET", "/readyz"))


def holds(check):
    try:
        return check()
    except (OSError, http.client.HTTPException, ValueError):
        return False


def timeline():
    begun = time.monotonic()
    all_there = set(os.listdir(MANIFESTS))
    print("watching", flush=True)
    while all_there <= set(os.listdir(MANIFESTS)):
        if time.monotonic() > begun + LIMIT:
            sys.exit("no manifest has gone")
        time.sleep(0.01)
    moved = time.monotonic()
    marks, running = [], set()
    # What comes after what, and how to see it.
    steps = {
        "etcd": [
            ("etcd has stopped", lambda: "etcd" not in running),
            ("etcd's manifest is back", lambda: os.path.exists(f"{MANIFESTS}/etcd-pod.yaml")),
            ("etcd has started", lambda: "etcd" in running),
            ("etcd serves", etcd_serves),
            ("the API is ready", api_ready),
        ],
        "API server": [
            ("the API server has stopped", lambda: "kube-apiserver" not in running),
            ("the API server's manifest is back", lambda: os.path.exists(f"{MANIFESTS}/kube-apiserver-pod.yaml")),
            ("the API server has started", lambda: "kube-apiserver" in running),
        ],
    }
    while steps["etcd"]:
        if time.monotonic() > moved + LIMIT:
            sys.exit(f"no more than this has happened: {marks}")
        if any("started" in name or "stopped" in name for wanted in steps.values() for name, _ in wanted):
            running = programs()
        for wanted in steps.values():
            while wanted and holds(wanted[0][1]):
                marks.append([wanted.pop(0)[0], round(time.monotonic() - moved, 2)])
        time.sleep(LOOK)
    print(json.dumps(marks))


def main():
    what, rest = sys.argv[1], sys.argv[2:]
    if what == "ready":
        ask("GET", "/readyz")
    elif what == "create":
        ask("POST", COLLECTION, {"metadata": {"name": rest[0]}, "data": {"a": "b"}})
    elif what == "delete":
        ask("DELETE", f"{COLLECTION}/{rest[0]}")
    elif what == "list":
        print(json.dumps(listed("?resourceVersion=0" if rest else "")[0], sort_keys=True))
    elif what == "follow":
        follow(rest[0])
    elif what == "timeline":
        timeline()


main()
