//! No text at all may panic the parser of the configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use maitred::config::Config;

fuzz_target!(|text: &str| {
    let _ = Config::parse(text, "fuzz");
});
