#!/usr/bin/env python3
"""Prints what the shipped binary is made of as CycloneDX 1.5 (ECMA-424), in JSON.

Every crate that goes into it, with its checksum from Cargo.lock, its licence, and what it depends
on; tests' and benches' own dependencies are left out. The same for the same Cargo.lock:
SOURCE_DATE_EPOCH is the only time in it, the serial number is made of the content.
"""

import datetime
import json
import os
import pathlib
import subprocess
import tomllib
import uuid

PROJECT = pathlib.Path(__file__).resolve().parent.parent
PLATFORM = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}


def purl(package):
    """The package URL of a crate: https://github.com/package-url/purl-spec, type cargo."""
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums, kind="library"):
    """A crate as a CycloneDX component."""
    # "/" is how crates wrote OR before SPDX expressions.
    licence = " OR ".join(part.strip() for part in (package["license"] or "").split("/"))
    made = {
        "type": kind,
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    }
    if package.get("description"):
        made["description"] = " ".join(package["description"].split())
    if licence:
        made["licenses"] = [{"expression": licence}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package.get("repository"):
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return made


def main():
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    command += ["--filter-platform", PLATFORM[os.uname().machine]]
    metadata = json.loads(subprocess.run(command, cwd=PROJECT, check=True, capture_output=True).stdout)
    lock = tomllib.loads((PROJECT / "Cargo.lock").read_text())
    checksums = {(p["name"], p["version"]): p["checksum"] for p in lock["package"] if "checksum" in p}
    packages = {package["id"]: package for package in metadata["packages"]}

    # From the root along what is linked or runs in the build, not what only tests need.
    edges, waiting = {}, [metadata["resolve"]["root"]]
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    while waiting:
        name = waiting.pop()
        if name in edges:
            continue
        edges[name] = sorted(
            dep["pkg"] for dep in nodes[name]["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])
        )
        waiting += edges[name]

    root = metadata["resolve"]["root"]
    components = [component(packages[name], checksums) for name in edges if name != root]
    components.sort(key=lambda made: made["bom-ref"])
    depends = [
        {"ref": purl(packages[name]), "dependsOn": sorted({purl(packages[other]) for other in others})}
        for name, others in edges.items()
    ]
    depends.sort(key=lambda made: made["ref"])
    content = json.dumps([components, depends], sort_keys=True)
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {"component": component(packages[root], checksums, "application")},
        "components": components,
        "dependencies": depends,
    }
    if "SOURCE_DATE_EPOCH" in os.environ:
        moment = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
        bom["metadata"]["timestamp"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    print(json.dumps(bom, indent=2))


main()
