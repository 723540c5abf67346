#!/usr/bin/env python3
"""Copies Kubernetes' generated.proto files and adds to each field what its Go type says of its JSON.

    descriptors.py OUTPUT ROOT...

A ROOT is a tree of Go sources (k8s.io/api/core/v1/generated.proto and types.go next to it). A package is taken
from the first ROOT that has it. Comments are left out. The options:

    json_name           where the name in JSON is not the field's
    (etcd_dr.shape)     1 pointer, 2 without omitempty, 4 inline, 8 omitzero; a sum
    (etcd_dr.items)     on a message: it stands for its only field, a list or a map
"""

import pathlib
import re
import sys

POINTER, ALWAYS, INLINE, OMITZERO = 1, 2, 4, 8
# Never stored: requests for conversion, examples, what audit logs contain.
LEFT_OUT = ("testapigroup", "example", "example2", "audit", "vendor", "imagepolicy")
OPTIONS = """syntax = "proto2";
package etcd_dr;
import "google/protobuf/descriptor.proto";
extend google.protobuf.FieldOptions { optional uint32 shape = 50001; }
extend google.protobuf.MessageOptions { optional bool items = 50001; }
"""

FIELD = re.compile(r"^\s+((?:optional|repeated|required)\s+\S+|map<[^>]+>)\s+(\w+)\s*=\s*(\d+);")
MESSAGE = re.compile(r"^message (\w+) \{")
STRUCT = re.compile(r"^type (\w+) struct \{")
NAMED = re.compile(r"^type (\w+) (\[\]|map\[)")
TAGGED = re.compile(r"^\s+(?:(\w+)\s+)?([^\s`]+(?:\s*)?[^`]*?)\s*`([^`]*)`")
# A field that was removed stays as a comment, so that its number is not used again; older releases stored it.
TOMBSTONE = re.compile(r"^\s*//\s*\w+\s+(\S+)\s+`([^`]*protobuf:[^`]*)`")
# The types of such fields that are still known, or were names of one: Go's and protobuf's.
REMOVED = {"string": "optional string", "[]string": "repeated string", "bool": "optional bool", "*IPFamily": "optional string"}
JSON_TAG = re.compile(r'json:"([^"]*)"')
PROTOBUF_TAG = re.compile(r'protobuf:"[a-z0-9]+,(\d+)')


def go_fields(package):
    """{message: {field number: (json name, shape)}} and the names of list and map types of a package."""
    structs, lists = {}, set()
    for source in sorted(package.glob("*.go")):
        if source.name.endswith("_test.go") or source.name == "generated.pb.go":
            continue
        struct = None
        for line in source.read_text().splitlines():
            if started := STRUCT.match(line):
                struct = structs.setdefault(started.group(1), {})
            elif named := NAMED.match(line):
                lists.add(named.group(1))
            elif line.startswith("}"):
                struct = None
            elif struct is not None and (removed := TOMBSTONE.match(line)):
                add_removed(struct, *removed.groups())
            elif struct is not None and (field := TAGGED.match(line)):
                add_field(struct, field.group(2).strip(), field.group(3))
    return structs, lists


def add_removed(struct, kind, tags):
    name = re.search(r"name=(\w+)", tags)
    if kind in REMOVED and name:
        number = add_field(struct, kind, tags)
        struct.setdefault("removed", {})[number] = f"{REMOVED[kind]} {name.group(1)}"


def add_field(struct, kind, tags):
    number, name = PROTOBUF_TAG.search(tags), JSON_TAG.search(tags)
    if not (number and name):
        return None
    name, *flags = name.group(1).split(",")
    shape = POINTER if kind.startswith("*") else 0
    if "inline" in flags or not name:
        shape |= INLINE
    elif "omitempty" not in flags:
        shape |= ALWAYS
    if "omitzero" in flags:
        shape |= OMITZERO
    struct[int(number.group(1))] = (name, shape)
    return int(number.group(1))


def annotated(proto, structs, lists):
    """The text of a proto file with options."""
    lines, message = [], None
    for line in proto.read_text().splitlines():
        code = line.split("//")[0].rstrip()
        if started := MESSAGE.match(code):
            message = started.group(1)
            lines.append(code)
            if message in lists and message not in structs:
                lines.append("  option (etcd_dr.items) = true;")
        elif message and (field := FIELD.match(code)):
            lines.append(field_line(field, structs.get(message, {})))
        elif code.startswith("import ") and "etcd_dr" not in "".join(lines):
            lines += ['import "etcd_dr.proto";', code]
        elif code.startswith(("syntax", "package", "import", "}")):
            if message and code.startswith("}"):
                removed = structs.get(message, {}).get("removed", {})
                lines += [field_line(FIELD.match(f"  {field} = {number};"), structs[message]) for number, field in removed.items()]
                message = None
            lines.append(code)
    if not any("etcd_dr.proto" in line for line in lines):
        at = next(i for i, line in enumerate(lines) if line.startswith("package")) + 1
        lines.insert(at, 'import "etcd_dr.proto";')
    return "\n".join(lines) + "\n"


def field_line(field, known):
    kind, name, number = field.groups()
    json_name, shape = known.get(int(number), (name, 0))
    options = []
    if json_name and json_name != name:
        options.append(f'json_name = "{json_name}"')
    if shape:
        options.append(f"(etcd_dr.shape) = {shape}")
    suffix = f" [{', '.join(options)}]" if options else ""
    return f"  {kind} {name} = {number}{suffix};"


def main(output, roots):
    done = set()
    for root in map(pathlib.Path, roots):
        for proto in sorted(root.rglob("generated.proto")):
            package = proto.relative_to(root)
            if package in done or any(part in LEFT_OUT for part in package.parts):
                continue
            done.add(package)
            target = pathlib.Path(output) / package
            target.parent.mkdir(parents=True, exist_ok=True)
            text = proto.read_text()
            text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
            target.write_text(annotated(proto, *go_fields(proto.parent)))
    (pathlib.Path(output) / "etcd_dr.proto").write_text(OPTIONS)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
