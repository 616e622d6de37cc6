#!/usr/bin/env bash
# Prints the figures of the documentation: the suite's own measurements over optimised programs, one test
# at a time. Wants a quiet machine; takes some twenty minutes, of which the build is a few.
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/prepare.sh

figures=(
    no_slot_idles_while_anyone_waits
    two_hundred_clients_are_served_one_at_a_time
    two_thousand_clients_are_served_one_at_a_time
    no_request_is_lost_when_one_of_three_is_killed_and_comes_back
    no_request_is_lost_when_all_three_are_dead_for_four_seconds
    ten_clients_do_not_feel_five_hundred_connections_of_another
    an_urgent_request_waits_for_two_others_at_the_most
    a_request_of_low_priority_gets_through_once_it_has_waited_long
    a_waiting_request_costs
    stale_connections_cost_nothing_of_ten_thousand
    clients_that_leave_in_mid_service_cause_no_overlap
    who_leaves_while_waiting_never_reaches_the_backend
    a_rename_is_obeyed_within_50_ms
    a_thousand_flips_are_obeyed_within_milliseconds
    a_change_of_ten_thousand_backends_is_in_force_within_50_ms
    an_idle_client_costs
    who_comes_back_when_told
    who_watches_a_thousand_backends
    nobody_sees_that_
    who_has_the_header_sees_that_
    ten_thousand_posts_are_done_once
    nothing_is_left_of_ten_seconds_
    pypi::
    soak_
)
run() { cargo test --profile measure "$1" "$2" -- --include-ignored --nocapture --test-threads 1 "${@:3}"; }

step "a slot taken and given back"
run --lib --quiet selection_costs_the_same_among_ten_thousand

step "the suite's figures"
run --test suite "${figures[@]}"
