//! No bytes at all may panic the parser of the health file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use maitred::health::Report;

fuzz_target!(|bytes: &[u8]| {
    let _ = Report::parse(bytes);
});
