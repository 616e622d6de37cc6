//! Which of the requests that nothing is wrong with are logged.

use crate::id::RequestId;

/// A share of all requests, chosen by their ids: so several proxies that see a request choose alike, and who knows its
/// id knows whether to look for it.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    /// Those whose number is below; `None`: all.
    below: Option<u64>,
}

impl Sample {
    /// `share` is in `0.0..=1.0`.
    pub fn of(share: f64) -> Self {
        // 2^64; to cast rounds down and keeps to the range.
        let below = share * (u64::MAX as f64 + 1.0);
        Self {
            below: (share < 1.0).then_some(below as u64),
        }
    }

    pub fn takes(self, id: Option<&RequestId>) -> bool {
        let number = || id.map_or_else(|| fastrand::u64(..), |id| number(id.as_str()));
        self.below.is_none_or(|below| number() < below)
    }
}

/// FNV-1a, whose high bits say little of the last bytes, and so MurmurHash3's last step.
fn number(id: &str) -> u64 {
    let fnv = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ fnv >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ mixed >> 33
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn taken(share: f64, ids: impl Iterator<Item = String>) -> usize {
        let sample = Sample::of(share);
        let ids = ids.map(|id| {
            HeaderValue::from_str(&id)
                .ok()
                .as_ref()
                .and_then(RequestId::accept)
        });
        ids.filter(|id| sample.takes(id.as_ref())).count()
    }

    #[test]
    fn a_share_is_that_share_of_ids_of_any_kind() {
        let made = |number: u32| {
            let random = [0; 6].into_iter().chain(number.to_be_bytes());
            let random: Vec<u8> = random.collect();
            RequestId::new(1, random.try_into().unwrap())
                .unwrap()
                .as_str()
                .to_owned()
        };
        for (share, expected) in [
            (0.0, 0..=0),
            (0.01, 850..=1150),
            (0.5, 49_000..=51_000),
            (1.0, 100_000..=100_000),
        ] {
            for taken in [
                taken(share, (0..100_000).map(|number| number.to_string())),
                taken(share, (0..100_000).map(made)),
                // No id at all.
                taken(share, (0..100_000).map(|_| String::new())),
            ] {
                assert!(expected.contains(&taken), "{share}: {taken}");
            }
        }
    }

    #[test]
    fn the_same_id_is_always_taken_or_never() {
        let id = RequestId::accept(&HeaderValue::from_static("an-id"));
        let first = Sample::of(0.5).takes(id.as_ref());
        assert!((0..100).all(|_| Sample::of(0.5).takes(id.as_ref()) == first));
    }
}
