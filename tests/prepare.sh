# Sourced by the other scripts: installs what the tests need beyond Rust and a C compiler, and tells the
# tests where it is. What it may install: as root, Debian's python3-venv, faketime, curl, iproute2 and iptables; in
# target/prometheus, Debian's prometheus, which is only unpacked, because installed it would run as a service; in
# target/python, the servers that tests/suite/pypi.rs runs and a strict reader of metrics.

folder=target/python
# Versions that the figures in the documentation were seen with.
servers=(flask==3.1.3 werkzeug==3.1.9 gunicorn==27.0.1 prometheus-client==0.26.0)

step() { printf '\n== %s\n' "$*"; }

install() {
    if [ "$(id -u)" != 0 ]; then
        echo "please install $1" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1" >/dev/null
}

# Unpacks a Debian package below target/.
unpack() {
    [ "$(id -u)" != 0 ] || apt-get update -qq
    mkdir -p "target/$1"
    (cd "target/$1" && apt-get -o APT::Sandbox::User=root download -qq "$1" && dpkg -x "$1"_*.deb . && rm "$1"_*.deb)
}

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

find_faketime() { find /usr/lib -name libfaketime.so.1 -print -quit 2>/dev/null; }

step "a Python with ${servers[*]}"
if has_servers; then
    echo "is in $folder"
else
    if ! make_venv; then
        install python3-venv
        make_venv
    fi
    "$folder/bin/pip" install --quiet --disable-pip-version-check "${servers[@]}"
fi
export MAITRED_PYTHON="$PWD/$folder/bin/python"

step "a wall clock that can be moved"
[ -n "$(find_faketime)" ] || install faketime
MAITRED_FAKETIME="$(find_faketime)"
export MAITRED_FAKETIME
echo "is $MAITRED_FAKETIME"

step "what the README's commands need, and the networks that tests make"
command -v curl || install curl
command -v ip || install iproute2
command -v iptables || install iptables

step "Prometheus and promtool"
if command -v prometheus && command -v promtool; then
    MAITRED_PROMETHEUS="$(dirname "$(command -v promtool)")"
else
    MAITRED_PROMETHEUS="$PWD/target/prometheus/usr/bin"
    [ -x "$MAITRED_PROMETHEUS/promtool" ] || unpack prometheus
    echo "are in $MAITRED_PROMETHEUS"
fi
export MAITRED_PROMETHEUS
