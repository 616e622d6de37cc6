#!/bin/sh
# The side-by-side benchmark, in one command: builds what is compared, runs it, and writes bench/results.md and
# bench/results.svg.
#
#   bench/run.sh            five to six minutes
#   bench/run.sh --quick    two to three minutes
#   bench/run.sh --help     everything else
#
# The first build takes some ten minutes on two cores: everything is linked as a whole.
set -eu
cd "$(dirname "$0")/.."
case " $* " in
  # Not worth such a build.
  *" --help "* | *" -h "*) exec cargo run --quiet --example compare -- --help ;;
esac
cargo build --release --bin proxy --bin poller --example bare --example compare
exec "${CARGO_TARGET_DIR:-target}/release/examples/compare" "$@"
