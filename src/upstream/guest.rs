//! Whose request it is, and how urgent: what the queue goes by when it is asked to be fair.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use http::HeaderName;

use super::{BackendIndex, Ticket};

/// A request that asks for a slot for the first time, as the queue sees it.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Whose it is; without `fair_by` all are the same one's.
    pub key: Key,
    /// How urgent it is; without `priority` all are [`Priority::Normal`].
    pub priority: Priority,
    /// Since when it waits.
    pub since: Instant,
    /// It may be sent again after it was sent: so it may try a backend of which nobody knows whether it is well.
    pub is_repeatable: bool,
}

impl Guest {
    /// One that is nobody's in particular, and not urgent.
    pub fn any(since: Instant) -> Self {
        Self {
            key: Key::default(),
            priority: Priority::default(),
            since,
            is_repeatable: false,
        }
    }
}

/// A request that asks for a slot.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// For the first time.
    First(Guest),
    /// Once more, with the ticket that its lease had; rather not from this backend, which failed it.
    Again(Ticket, Option<BackendIndex>),
}

/// Whose a request is: 64 bits of a hash that nobody outside can compute, so that a key takes the same
/// room whatever the client sends, and nobody can make his own equal another's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key(pub(super) u64);

/// What a key is made of.
#[derive(Hash)]
enum KeySource<'a> {
    Nobody,
    Address(IpAddr),
    Header(&'a [u8]),
}

/// Makes keys; each upstream has secrets of its own. Live, as keys outlive every health change.
#[derive(Debug, Default)]
pub struct Keys(RandomState);

impl Keys {
    /// The key of a client at this address; those without any (Unix sockets) have one together.
    pub fn of_address(&self, address: Option<IpAddr>) -> Key {
        self.of(match address {
            Some(address) => KeySource::Address(client_network(address)),
            None => KeySource::Nobody,
        })
    }

    /// The key that a header names.
    pub fn of_header(&self, value: &[u8]) -> Key {
        self.of(KeySource::Header(value))
    }

    fn of(&self, source: KeySource<'_>) -> Key {
        Key(self.0.hash_one(source))
    }
}

/// The addresses that one client has at its will: an IPv4 address, or an IPv6 network of 64 bits, which is
/// the least that a machine is given (RFC 4291, section 2.5.4).
fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

/// What tells one client from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FairBy {
    /// Where its connection comes from.
    ClientAddress,
    /// What this header says; without it, where the connection comes from.
    Header(HeaderName),
}

/// How urgent a request is, the most urgent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Before all others.
    High,
    /// What a request is unless somebody who is trusted says otherwise.
    #[default]
    Normal,
    /// When nobody else waits, or it has waited for long.
    Low,
}

impl Priority {
    /// Every priority and what a header calls it, the most urgent first.
    pub const ALL: [(&'static str, Self); 3] = [
        ("high", Self::High),
        ("normal", Self::Normal),
        ("low", Self::Low),
    ];

    /// What a header's value says, whatever its letter case; what is none of the words says nothing.
    pub fn of_header(value: &[u8]) -> Self {
        let mut all = Self::ALL.iter();
        let known = all.find(|(word, _)| value.eq_ignore_ascii_case(word.as_bytes()));
        known.map_or_else(Self::default, |(_, priority)| *priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_client() {
        let keys = Keys::default();
        let key = |text: &str| keys.of_address(Some(address(text)));
        assert_eq!(key("2001:db8:0:1::1"), key("2001:db8:0:1:ffff::2"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8:0:2::1"));
        assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
        assert_eq!(key("10.0.0.1"), key("::ffff:10.0.0.1"));
    }

    #[test]
    fn a_header_never_names_an_address_and_no_two_upstreams_make_the_same_keys() {
        let keys = Keys::default();
        let of_address = keys.of_address(Some(address("10.0.0.1")));
        assert_ne!(keys.of_header(b"10.0.0.1"), of_address);
        assert_ne!(keys.of_header(&[10, 0, 0, 1]), of_address);
        assert_eq!(keys.of_header(b"a"), keys.of_header(b"a"));
        assert_ne!(keys.of_header(b"a"), Keys::default().of_header(b"a"));
    }

    #[test]
    fn a_priority_is_one_of_three_words() {
        for (said, priority) in [
            (&b"high"[..], Priority::High),
            (b"Low", Priority::Low),
            (b"normal", Priority::Normal),
            (b"highest", Priority::Normal),
            (b"\xff", Priority::Normal),
        ] {
            assert_eq!(Priority::of_header(said), priority, "{said:?}");
        }
    }
}
