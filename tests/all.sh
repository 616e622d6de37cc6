#!/usr/bin/env bash
# Sets up what the tests need beyond Rust and a C compiler, and runs every test there is, but for those
# that take minutes (`tests/figures.sh`). Needs no argument and leaves nothing but `target/` behind.
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/prepare.sh

step "the tests, long ones included"
cargo test --quiet --workspace -- --include-ignored --skip soak_

step "the slots under a model checker"
cargo test --quiet --features shuttle --lib shuttle_

step "a minute of every fault at once"
PROFILE=dev bench/soak.sh --seconds 60
