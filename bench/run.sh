#!/bin/sh
# The side-by-side benchmark, in one command: builds what is compared, runs it, and writes bench/results.md and
# bench/results.svg.
#
#   bench/run.sh            five to six minutes
#   bench/run.sh --quick    two to three minutes
#   bench/run.sh --help     everything else
set -eu
cd "$(dirname "$0")/.."
cargo build --release --bin proxy --bin poller --example bare --example compare
exec "${CARGO_TARGET_DIR:-target}/release/examples/compare" "$@"
