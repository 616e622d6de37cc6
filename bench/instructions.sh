#!/bin/sh
# Counts user-space instructions per proxied request under callgrind: they repeat where times scatter.
# Each program serves 1,000 and then, started anew, 4,000 requests over eight connections (over one alone, each
# request would pay for going to sleep and waking up, too); the difference over 3,000 leaves out what starting and
# stopping cost. Needs a release build (bench/run.sh makes one).
#
#   bench/instructions.sh [--check]     --check: a limit that is missed is exit status 1
set -eu
cd "$(dirname "$0")/.."
built="${CARGO_TARGET_DIR:-target}/release"
compare="$built/examples/compare"
few=1000 many=4000 connections=8
limit=66000 limit_plain=1.10 limit_log=1.20 limit_explain=1.25

check=no
case "${1:-}" in
  '') ;;
  --check) check=yes ;;
  *) echo "usage: bench/instructions.sh [--check]" >&2; exit 2 ;;
esac
command -v valgrind >/dev/null || {
  echo "instructions.sh: valgrind is missing (apt-get install valgrind)" >&2
  exit 2
}
for program in "$built/proxy" "$built/examples/bare" "$compare"; do
  [ -x "$program" ] || { echo "instructions.sh: $program is missing: run bench/run.sh" >&2; exit 2; }
done

# callgrind counts `rep movsb`, with which glibc copies a few kilobytes in some 100 cycles, as an instruction per
# byte; without it the count says what the processor does.
export GLIBC_TUNABLES=glibc.cpu.hwcaps=-ERMS

folder=$(mktemp -d)
backend='' running=''
# Ends what this script started, by its id, however it ends.
tidy() {
  for id in $running $backend; do kill -KILL "$id" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap tidy EXIT
trap 'exit 130' INT TERM

# shellcheck disable=SC2046
set -- $("$compare" ports 5)
port=$1 admin=$2 backend1=$3 backend2=$4 backend3=$5
"$compare" backend "$backend1" "$backend2" "$backend3" >/dev/null &
backend=$!
# A folder of its own, for the proxy watches it, and the access log is none of its business.
mkdir "$folder/health"
echo '{ "server1": true, "server2": true, "server3": true }' >"$folder/health/status.json"

# configure NAME LOG [SECTION]: writes maitred's configuration from the benchmark's template.
configure() {
  sed -e "s|@PORT@|$port|; s|@ADMIN@|$admin|; s|@FOLDER@|$folder|; s|@LOG@|$2|" \
    -e "s|^  admin:|  ${3:-}\n&|" \
    -e "s|@BACKEND1@|$backend1|; s|@BACKEND2@|$backend2|; s|@BACKEND3@|$backend3|" \
    bench/peers/plain/maitred.yaml >"$folder/$1.yaml"
}

# instructions REQUESTS SIGNAL COMMAND..: what one life of the program took.
instructions() {
  requests=$1 signal=$2
  shift 2
  rm -f "$folder"/callgrind.out*
  valgrind --tool=callgrind --callgrind-out-file="$folder/callgrind.out" "$@" \
    >"$folder/out" 2>"$folder/log" &
  running=$!
  "$compare" load --requests "$requests" --connections "$connections" "$port" >"$folder/load" || {
    cat "$folder/load" "$folder/log" >&2
    exit 2
  }
  kill -"$signal" "$running"
  wait "$running" 2>/dev/null || true
  running=''
  counted=$(sed -n 's/^\(summary\|totals\): *//p' "$folder/callgrind.out" | tail -n 1)
  [ -n "$counted" ] || { echo "instructions.sh: callgrind wrote no total" >&2; cat "$folder/log" >&2; exit 2; }
}

# per_request SIGNAL COMMAND..: sets $each.
per_request() {
  instructions "$few" "$@"
  first=$counted
  instructions "$many" "$@"
  each=$(((counted - first) / (many - few)))
}

configure plain off 'request_id: off'
configure off off
configure text text
configure explain text 'explain: { capacity: 10000 }'
# Pingora sleeps for five minutes at SIGTERM; SIGINT ends it at once.
per_request INT "$built/examples/bare" "$port" \
  "127.0.0.1:$backend1" "127.0.0.1:$backend2" "127.0.0.1:$backend3"
bare=$each
per_request TERM "$built/proxy" -c "$folder/plain.yaml"
plain=$each
per_request TERM "$built/proxy" -c "$folder/off.yaml"
off=$each
per_request TERM "$built/proxy" -c "$folder/text.yaml"
log=$each
per_request TERM "$built/proxy" -c "$folder/explain.yaml"
explain=$each

awk -v bare="$bare" -v plain="$plain" -v off="$off" -v log_="$log" -v limit="$limit" -v limit_plain="$limit_plain" \
  -v explain="$explain" -v limit_log="$limit_log" -v limit_explain="$limit_explain" -v check="$check" '
  function verdict(ok) { if (!ok) missed = 1; return ok ? "met" : "missed" }
  function thousands(n) { return n < 1000 ? n "" : thousands(int(n / 1000)) sprintf(",%03d", n % 1000) }
  BEGIN {
    print "| program | instructions per request | to bare Pingora | limit | |"
    print "|---|---:|---:|---|---|"
    printf "| bare Pingora | %s | 1.00 | | |\n", thousands(bare)
    printf "| maitred, neither request ids nor access log | %s | %.2f | %s and %.2f | %s |\n", thousands(plain),
      plain / bare, thousands(limit), limit_plain, verdict(plain <= limit && plain <= limit_plain * bare)
    printf "| maitred, request ids on | %s | %.2f | | |\n", thousands(off), off / bare
    printf "| maitred, request ids and access log on | %s | %.2f | %.2f | %s |\n", thousands(log_), log_ / bare,
      limit_log, verdict(log_ <= limit_log * bare)
    printf "| maitred, request ids, access log and explain on | %s | %.2f | %.2f | %s |\n", thousands(explain), explain / bare,
      limit_explain, verdict(explain <= limit_explain * bare)
    exit (check == "yes" && missed) ? 1 : 0
  }'
