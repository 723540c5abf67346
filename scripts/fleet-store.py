#!/usr/bin/env python3
"""Makes stores of many clusters for measuring `list --fleet`: folders as `copy` writes them, with a snapshot of a few bytes.

    scripts/fleet-store.py DIR [--clusters 500] [--first 0] [--backups 100] [--buckets 500] [--age 1]

DIR gets the folders bucket-000, bucket-001, ... each with its share of the clusters: an S3 server that keeps buckets as folders
(s3s-fs) serves DIR as it is. Everything is an hour old, so that a catalog made now is believed. The Manifests are the one of
fixtures/store/backup-1 with another id, cluster and time, and sizes that grow and end with a jump in every fifth cluster; backups are
an hour apart, and the newest is AGE hours old. --first numbers the clusters from there.
"""
import argparse
import copy
import datetime
import hashlib
import json
import math
import os
import pathlib

FIXTURE = pathlib.Path(__file__).parent.parent / "fixtures/store/backup-1/backup.json"


def document(value):
    return (json.dumps(value, indent=2) + "\n").encode()


def put(path, content, when):
    path.write_bytes(content)
    os.utime(path, (when, when))


def backup(folder, manifest, when):
    """One copy: the claim, an object for each file, the index, and the Manifest."""
    folder.mkdir(parents=True)
    whole = document(manifest)
    digest = hashlib.sha256(whole).hexdigest()
    objects = []
    for file in manifest["files"]:
        content = b"packed"
        name = file["name"] + ".zst"
        put(folder / name, content, when)
        objects.append({"file": file["name"], "object": name, "size": len(content),
                        "sha256": hashlib.sha256(content).hexdigest(), "compression": "zstd"})
    claim = {"schemaVersion": 1, "manifestSha256": digest, "begun": manifest["created"], "host": "h", "writer": "00000000"}
    put(folder / f"claim-{digest[:16]}.json", document(claim), when)
    put(folder / "remote.json", document({"schemaVersion": 1, "manifestSha256": digest, "objects": objects}), when)
    put(folder / "backup.json", whole, when)


def size(number, part):
    """The bytes of a snapshot after a part of the time: a cluster's own size, growth, and waves, as a cluster that is used has them."""
    bytes_ = (40 << 20) * (1 + number * 7 % 11) * (1 + part / 2 + math.sin(part * 40 + number) / 9)
    return int(bytes_ * (0.4 if number % 5 == 4 and part == 1 else 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--backups", type=int, default=100)
    parser.add_argument("--buckets", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--age", type=int, default=1)
    options = parser.parse_args()
    fixture = json.loads(FIXTURE.read_bytes())
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    when = (now - datetime.timedelta(hours=1)).timestamp()
    for number in range(options.first, options.first + options.clusters):
        bucket = options.dir / f"bucket-{number % options.buckets:03}"
        uuid = f"00000000-0000-4000-8000-{number:012}"
        for turn in range(1, options.backups + 1):
            manifest = copy.deepcopy(fixture)
            manifest["id"] = f"backup-{turn}"
            manifest["cluster"]["uuid"] = uuid
            manifest["node"]["name"] = "master-0"
            for file in manifest["files"]:
                if file["kind"] == "snapshot":
                    file["size"] = size(number, turn / options.backups)
            taken = now - datetime.timedelta(hours=options.backups - turn + options.age)
            manifest["created"] = taken.strftime("%Y-%m-%dT%H:%M:%SZ")
            backup(bucket / uuid / "master-0" / f"backup-{turn}", manifest, when)


if __name__ == "__main__":
    main()
