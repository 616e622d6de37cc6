#!/usr/bin/env bash
# How many changes of the code no test notices: cargo-mutants over a folder of `src`, with that folder's own tests.
# Prints those changes and the figure.
#
#     tests/mutants.sh policy
#     tests/mutants.sh upstream --file 'src/upstream/queue/*' --shard 0/4
#     tests/mutants.sh upstream --file src/upstream/sync.rs --features shuttle
#
# What follows the folder goes to cargo-mutants, which is installed below target/. To build all of maitred for each
# change would take days. But a layer knows nothing of those above it: so the folder is copied into a crate of its
# own, which stands on another one of the layers below it, and both know only the libraries that they name.
set -euo pipefail
cd "$(dirname "$0")/.."

version=27.1.0
# Tests that take longer hang, which is noticed as well. On a quiet machine they need a second or two.
timeout_seconds=40
# The same few cases each time, none of them shrunk or kept.
export PROPTEST_CASES=64 PROPTEST_RNG_SEED=7 PROPTEST_MAX_SHRINK_ITERS=0 PROPTEST_DISABLE_FAILURE_PERSISTENCE=true

folder="${1:?name a folder of src, such as policy}"
shift
# Most of this file is code under the feature only, which only schedules can test.
tests=(--lib)
case " $* " in
*" shuttle "*) tests+=(shuttle_) timeout_seconds=600 ;;
*) set -- --exclude src/upstream/sync.rs "$@" ;;
esac
tool=target/cargo-mutants/bin/cargo-mutants
copy="target/mutants/$folder"

step() { printf '\n== %s\n' "$*"; }

# The modules of src/lib.rs that come before the folder.
layers_below() { sed -n "/^pub mod $folder;/q; s/^pub mod \(.*\);/\1/p" src/lib.rs; }

# The tables of Cargo.toml that $1 matches, with those of their lines whose library the sources in $2 name.
tables() {
    local used='|' name
    for name in $(grep -oE '^[a-z][a-z0-9_-]* = ' Cargo.toml | cut -d' ' -f1 | sort -u); do
        ! grep -rqE "\b${name//-/_}(::|!)" "$2" || used+="$name|"
    done
    awk -v wanted="$1" -v used="$used" '
        /^\[/ { is_wanted = $0 ~ wanted; if (is_wanted) print }
        is_wanted && index(used, "|" $1 "|")' Cargo.toml
}

package() { printf '[package]\nname = "%s"\nversion = "0.0.0"\nedition = "2024"\n' "$1"; }

"$tool" mutants --version 2>/dev/null | grep -q " $version$" || {
    step "cargo-mutants $version"
    cargo install --quiet --locked --version "$version" --root target/cargo-mutants cargo-mutants
}

step "src/$folder as a crate of its own, in $copy"
rm -rf "$copy/src" "$copy/below" "$copy/mutants.out"
mkdir -p "$copy/src" "$copy/below/src"
for layer in $(layers_below); do
    cp -r "src/$layer"* "$copy/below/src/"
    echo "pub mod $layer;" >>"$copy/below/src/lib.rs"
done
cp -r "src/$folder" "$copy/src/"
{
    echo "use below::{$(layers_below | paste -sd,)};"
    echo "pub mod $folder;"
} >"$copy/src/lib.rs"
{
    package below
    tables '^\[dependencies\]' "$copy/below/src"
} >"$copy/below/Cargo.toml"
{
    echo '[workspace]'
    package maitred
    # Else each change would be built twice.
    printf '[lib]\ndoctest = false\n'
    tables '^\[(dev-dependencies|features)\]' "$copy/src"
    tables '^\[dependencies\]' "$copy/src"
    echo 'below = { path = "below" }'
    printf '[patch.crates-io]\nlibz-ng-sys = { path = "%s" }\n' "$PWD/shims/libz-ng-sys"
    printf '[profile.dev]\ndebug = 0\n'
} >"$copy/Cargo.toml"
cp Cargo.lock "$copy/"

step "cargo-mutants over src/$folder"
# 2: some were not noticed; 3: some hang.
code=0
(cd "$copy" && nice -n 19 "../../../$tool" mutants --in-place --colors never --caught \
    --timeout "$timeout_seconds" --build-timeout 300 "$@" -- "${tests[@]}") || code=$?
[ "$code" = 0 ] || [ "$code" = 2 ] || [ "$code" = 3 ] || exit "$code"

step "what no test notices"
cat "$copy/mutants.out/missed.txt"
count() { wc -l <"$copy/mutants.out/$1.txt"; }
awk -v caught="$(count caught)" -v hang="$(count timeout)" -v missed="$(count missed)" \
    -v unviable="$(count unviable)" -v seconds="$SECONDS" '
    BEGIN {
        tried = caught + hang + missed
        printf "%d changes: %d noticed, %d hang, %d not noticed (%.1f %%); %d more do not compile; %d s\n",
            tried, caught, hang, missed, tried ? 100 * missed / tried : 0, unviable, seconds
    }'
