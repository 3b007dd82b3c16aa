"""Makes the table of field documentation from the comments in the .proto files: the `//` lines right above a message or field, or the one
behind a field. A comment that begins "JSON shape:" is for maintainers and stays out. Knows as much of the language as our own files use."""
import re
import sys

*protos, out = sys.argv[1:]
docs = {}


def add(message, field, lines):
    text = " ".join(x.strip() for x in lines if x.strip())
    if text and not text.startswith("JSON shape:"):
        docs[(message, field)] = text


for path in protos:
    package, stack, comment = "", [], []
    with open(path, encoding="utf-8") as f:
        for raw in f:
            line = raw.strip()
            if line.startswith("//"):
                comment.append(line[2:])
                continue
            code, _, behind = line.partition("//")
            code = code.strip()
            if m := re.match(r"package\s+([\w.]+)", code):
                package = m[1]
            elif m := re.match(r"(message|enum|oneof)\s+(\w+)\s*\{", code):
                stack.append((m[1], m[2]))
                if m[1] == "message":
                    add(".".join([package] + [n for k, n in stack if k == "message"]), "", comment)
                if "}" in code:
                    stack.pop()
            elif code.startswith("}"):
                stack.pop()
            elif m := re.match(r"(?:(?:optional|repeated|required)\s+)?(?:map\s*<[^>]*>|[\w.]+)\s+(\w+)\s*=\s*\d+", code):
                if stack and stack[-1][0] != "enum":
                    add(".".join([package] + [n for k, n in stack if k == "message"]), m[1], comment or [behind])
            if code or not line:
                comment = []


def quote(s):
    return '"' + s.replace("\\", "\\\\").replace('"', '\\"') + '"'


# Sorted as strcmp() sorts, for the search in schema.c.
rows = sorted(docs.items(), key=lambda kv: (kv[0][0].encode(), kv[0][1].encode()))
with open(out, "w", encoding="utf-8") as f:
    f.write("/* Made by tools/gen-field-docs.py. */\n#include <stddef.h>\n")
    f.write("struct pb_doc {\n\tconst char *message, *field, *text;\n};\n")
    f.write("extern const struct pb_doc pb_docs[];\nextern const size_t pb_docs_n;\nconst struct pb_doc pb_docs[] = {\n")
    for (message, field), text in rows:
        f.write(f"\t{{ {quote(message)}, {quote(field)}, {quote(text)} }},\n")
    f.write("\t{ NULL, NULL, NULL },\n};\n")
    f.write(f"const size_t pb_docs_n = {len(rows)};\n")
