#!/usr/bin/env bash
# Sets up what the tests need beyond Rust and a C compiler, and runs every test there is.
#
# Needs no argument and leaves nothing but `target/` behind. What it may install: as root, Debian's
# python3-venv; in target/python, the servers that tests/suite/pypi.rs runs.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=target/python
# Versions that the figures in the documentation were seen with.
servers=(flask==3.1.3 werkzeug==3.1.9 gunicorn==27.0.1)

step() { printf '\n== %s\n' "$*"; }

# A venv whose pip is missing is one that Debian without python3-venv leaves half made.
make_venv() { python3 -m venv --clear "$folder" >/dev/null 2>&1; }

# Whether the venv has exactly these versions.
has_servers() {
    "$folder/bin/python" - "${servers[@]}" 2>/dev/null <<'PYTHON'
import importlib.metadata
import sys

for server in sys.argv[1:]:
    name, version = server.split("==")
    if importlib.metadata.version(name) != version:
        sys.exit(1)
PYTHON
}

step "a Python with ${servers[*]}"
if has_servers; then
    echo "is in $folder"
else
    if ! make_venv; then
        if [ "$(id -u)" != 0 ]; then
            echo "python3 -m venv does not work: install python3-venv" >&2
            exit 1
        fi
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
        make_venv
    fi
    "$folder/bin/pip" install --quiet --disable-pip-version-check "${servers[@]}"
fi
MAITRED_PYTHON="$PWD/$folder/bin/python"
export MAITRED_PYTHON

step "the tests, long ones included"
cargo test --quiet --workspace -- --include-ignored

step "the slots under a model checker"
cargo test --quiet --features shuttle --lib shuttle_
