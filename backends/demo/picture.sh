#!/usr/bin/env bash
# Draws docs/demo.svg from a real run: server2 is killed under the load of eight clients.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo run --quiet --bin demo -- --plain --clients 8 --script ....2 --duration 10500ms --svg docs/demo.svg
