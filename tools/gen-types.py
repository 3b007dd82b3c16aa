"""Makes the table of every message type (for Any and for kinds by name) from the headers that protoc-c wrote."""
import re
import sys

*headers, out = sys.argv[1:]
names = []
for h in headers:
    if h.endswith(".h"):
        with open(h) as f:
            names += re.findall(r"^extern const ProtobufCMessageDescriptor (\w+);", f.read(), re.M)
names.sort()
with open(out, "w") as f:
    f.write("/* Made by tools/gen-types.py. */\n#include <protobuf-c/protobuf-c.h>\n#include <stddef.h>\n")
    for n in names:
        f.write(f"extern const ProtobufCMessageDescriptor {n};\n")
    f.write("extern const ProtobufCMessageDescriptor *const pb_all_types[];\nextern const size_t pb_all_types_n;\n")
    f.write("const ProtobufCMessageDescriptor *const pb_all_types[] = {\n")
    for n in names:
        f.write(f"\t&{n},\n")
    f.write(f"\tNULL\n}};\nconst size_t pb_all_types_n = {len(names)};\n")
