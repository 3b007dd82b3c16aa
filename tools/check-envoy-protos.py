#!/usr/bin/env python3
"""Compares proto/envoy with the public protos of the PyPI package xds-protos: every message, field, number, type and enum value that we have
must be there, the same. Needs protoc, and a Python that can import xds-protos (`pip install xds-protos` into a virtual environment):

    venv/bin/python tools/check-envoy-protos.py

Exits with 77 (skipped) when one of them is missing."""
import glob
import importlib
import os
import shutil
import subprocess
import sys
import tempfile

try:
    import envoy
    from google.protobuf import descriptor_pb2, descriptor_pool
except ImportError as e:
    print(f"skipped: {e}; install xds-protos", file=sys.stderr)
    sys.exit(77)
if not shutil.which("protoc"):
    print("skipped: no protoc", file=sys.stderr)
    sys.exit(77)

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
F = descriptor_pb2.FieldDescriptorProto


def ours():
    with tempfile.NamedTemporaryFile() as out:
        files = sorted(glob.glob(f"{root}/proto/envoy/*.proto"))
        subprocess.run(["protoc", f"--proto_path={root}/proto", "--proto_path=/usr/include", f"--descriptor_set_out={out.name}", *files], check=True)
        return descriptor_pb2.FileDescriptorSet.FromString(out.read()).file


def load_public():
    site = os.path.dirname(list(envoy.__path__)[0])
    for top in ("envoy", "udpa", "xds", "google/rpc"):
        for folder, _, names in os.walk(os.path.join(site, top)):
            for name in names:
                if name.endswith("_pb2.py"):
                    module = os.path.relpath(os.path.join(folder, name[:-3]), site).replace("/", ".")
                    try:
                        importlib.import_module(module)
                    except Exception:           # some need packages that nobody here uses
                        pass
    return descriptor_pool.Default()


def type_of(f):
    return f.type_name if f.type in (F.TYPE_MESSAGE, F.TYPE_ENUM) else f.type


problems, counted, unknown = [], 0, []


def check_enum(e, full, pool):
    try:
        theirs = pool.FindEnumTypeByName(full)
    except KeyError:
        problems.append(f"{full}: no such enum")
        return
    values = {v.name: v.number for v in theirs.values}
    for v in e.value:
        if values.get(v.name) != v.number:
            problems.append(f"{full}.{v.name}: {v.number} here, {values.get(v.name)} there")


def check_message(m, full, pool):
    global counted
    try:
        theirs = descriptor_pb2.DescriptorProto()
        pool.FindMessageTypeByName(full).CopyToProto(theirs)
    except KeyError:
        unknown.append(full)
        return
    fields = {f.name: f for f in theirs.field}
    for f in m.field:
        counted += 1
        t = fields.get(f.name)
        if not t:
            problems.append(f"{full}.{f.name}: no such field")
        elif (t.number, type_of(t)) != (f.number, type_of(f)):
            problems.append(f"{full}.{f.name}: {f.number} {type_of(f)} here, {t.number} {type_of(t)} there")
        elif (t.label == F.LABEL_REPEATED) != (f.label == F.LABEL_REPEATED):
            problems.append(f"{full}.{f.name}: repeated in one of them only")
        elif t.HasField("oneof_index") != f.HasField("oneof_index") and not t.proto3_optional:
            problems.append(f"{full}.{f.name}: in a oneof in one of them only")
    for n in m.nested_type:
        if not n.options.map_entry:
            check_message(n, f"{full}.{n.name}", pool)
    for e in m.enum_type:
        check_enum(e, f"{full}.{e.name}", pool)


public = load_public()
for file in ours():
    for message in file.message_type:
        check_message(message, f"{file.package}.{message.name}", public)
    for enum in file.enum_type:
        if not file.package == "stats":
            check_enum(enum, f"{file.package}.{enum.name}", public)
istio = ("istio.", "io.istio.", "stats.", "envoy.tcp.metadataexchange.")        # Istio's own, which that package does not have
problems += [f"{name}: no such message" for name in unknown if not name.startswith(istio)]
print("\n".join(problems) if problems else f"{counted} fields compared: all the same")
sys.exit(bool(problems))
