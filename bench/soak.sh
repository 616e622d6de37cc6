#!/bin/sh
# The soak, in one command: builds the release proxy and lets every kind of fault loose on it at once.
#
#   bench/soak.sh                 twenty minutes of load, and some for rests
#   bench/soak.sh --seconds 120   as long as one likes
#   bench/soak.sh --seed 7        the faults of a run that failed
#   bench/soak.sh --help          everything else
#
# The first build takes some ten minutes on two cores. With PROFILE=dev the proxy is that of the tests; with
# PROFILE=measure it is nearly as fast as the release, and built in a quarter of its time.
set -eu
cd "$(dirname "$0")/.."
profile="${PROFILE:-release}"
cargo build --profile "$profile" --bin proxy --example soak
[ "$profile" != dev ] || profile=debug
exec "${CARGO_TARGET_DIR:-target}/$profile/examples/soak" "$@"
