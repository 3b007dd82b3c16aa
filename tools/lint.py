"""Checks that no tool does: the layers of the source folders, words that do not belong in
the tree, and files that grew past a screenful of screens. Exits non-zero with one line a finding."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# The layer table of docs/architecture.md: a folder, and what it may include from.
MAY_USE = {
    "base": set(),
    "pb": {"base"},
    "net": {"base"},
    "http": {"base", "net"},
    "xds": {"base", "pb", "net", "http"},
    "proxy": {"base", "pb", "net", "http", "xds"},
    "mesh": {"base", "pb"},
    "translate": {"base", "pb", "mesh"},
    "kube": {"base", "pb", "net", "http"},
    "node": {"base", "net", "http", "kube", "pb"},
    "cmd": {"base", "pb", "net", "http", "xds", "proxy", "mesh", "translate", "kube", "node"},
}
GENERATED = {"google", "envoy", "istio", "k8s", "openapi"}      # headers made from proto/
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")


def tracked(*patterns):
    out = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [f for f in out.splitlines() if os.path.exists(os.path.join(ROOT, f))]


def layer_findings():
    for path in tracked("src/*.c", "src/*.h"):
        layer = path.split("/")[1]
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                m = re.match(r'#include "([a-z0-9_]+)/', line)
                if not m or m.group(1) == layer:
                    continue
                used = m.group(1)
                if used in GENERATED or used.startswith("kube") and line.rstrip().endswith('.pb-c.h"'):
                    continue
                if used in MAY_USE and used not in MAY_USE[layer]:
                    yield f"{path}:{number}: {layer} must not include from {used}"


def word_findings():
    for path in tracked("src/*.c", "src/*.h", "tools/*.py", "tests/*.py", "tests/*.c", "fuzz/*.c", "dev"):
        if path == "tools/lint.py":
            continue
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                if UNFINISHED.search(line):
                    yield f"{path}:{number}: unfinished work: {line.strip()}"
                if path.startswith("src/") and not path.startswith("src/cmd/") and re.search(r"(?<![\w>.])(printf|puts|exit) ?\(", line):
                    yield f"{path}:{number}: only src/cmd prints to standard output or exits: {line.strip()}"


def main():
    findings = [*layer_findings(), *word_findings()]
    for f in findings:
        print(f)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
