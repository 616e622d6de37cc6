//! Owns what the report says of the machine, of the versions and of the day.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Processor, cores and kernel, in one line.
pub fn describe() -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    // Not `available_parallelism`: this process may keep to one of them.
    let cores = processor
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split('-').next().unwrap_or_default().trim();
    format!("{model}, {cores} cores, Linux {kernel}, {}", distribution())
}

fn distribution() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(
            || "unknown distribution".into(),
            |name| name.trim_matches('"').into(),
        )
}

/// The first line that a program prints, which is where it names its version.
pub fn first_line(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    // nginx prints its version to standard error.
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    said.lines().next().map(str::to_owned)
}

/// The first word of a text that looks like a version: `HAProxy version 2.6.12-1 2025/..` -> `2.6.12`.
pub fn version_in(text: &str) -> Option<String> {
    text.split(|c: char| c.is_whitespace() || "/-+~,".contains(c))
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.'))
        .map(str::to_owned)
}

/// The version of a crate in a lock file.
pub fn locked_version(lock: &str, name: &str) -> Option<String> {
    let (_, after) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    after.split('"').next().map(str::to_owned)
}

/// Today by the system's clock, in UTC: `2026-11-22`.
pub fn today() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    date_of_day(now.as_secs() / 86_400)
}

/// The date of a day since 1970-01-01 (Howard Hinnant, `civil_from_days`): years begin in March, so that a
/// leap day is the last of its year.
fn date_of_day(day: u64) -> String {
    let shifted = day + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        assert_eq!(date_of_day(0), "1970-01-01");
        assert_eq!(date_of_day(11_016), "2000-02-29");
        assert_eq!(date_of_day(20_453), "2025-12-31");
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let version = |text| version_in(text).unwrap();
        assert_eq!(
            version("HAProxy version 2.6.12-1+deb12u3 2025/10/03 - https://haproxy.org/"),
            "2.6.12"
        );
        assert_eq!(version("nginx version: nginx/1.22.1"), "1.22.1");
        assert_eq!(
            version("v2.8.4 h1:q3pe0wpBj1OcHFZ3n/1nl4V4bxBrYoSoab7rL9BMYNk="),
            "2.8.4"
        );
        assert_eq!(version_in("nothing"), None);
    }

    #[test]
    fn a_lock_file_names_versions() {
        let lock = "[[package]]\nname = \"pingora\"\nversion = \"0.9.1\"\n";
        assert_eq!(locked_version(lock, "pingora").unwrap(), "0.9.1");
        assert_eq!(locked_version(lock, "pingo"), None);
    }
}
