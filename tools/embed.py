"""embed.py OUT FILE...: text files as C strings, embed_<name>, so that the program carries them."""
import os
import sys

out, *files = sys.argv[1:]
with open(out, "w") as f:
    f.write("/* Made by tools/embed.py. */\n")
    for path in files:
        name = os.path.basename(path).replace(".", "_").replace("-", "_")
        with open(path, "rb") as g:
            data = g.read()
        f.write(f"extern const char embed_{name}[];\nconst char embed_{name}[] =\n")
        for line in data.decode().splitlines(keepends=True):
            text = line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
            f.write(f'\t"{text}"\n')
        f.write("\t\"\";\n")
