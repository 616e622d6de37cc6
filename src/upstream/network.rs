//! Networks of IP addresses, as lists of the trusted are made of.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// IP addresses with the same beginning, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Nothing beyond the prefix is set.
    first: IpAddr,
    prefix_bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NetworkError {
    /// It is none at all.
    #[error("an IP address or a network such as 10.0.0.0/8")]
    Form,
    /// Its prefix is longer than its address.
    #[error("a network with a prefix of at most {0} bits")]
    Prefix(u8),
    /// Bits beyond the prefix are set: a typing error in one or the other.
    #[error("a network: its first address is {0}")]
    NotFirst(Network),
}

impl Network {
    /// Whether `address` is one of them. An IPv4 address counts as such in its IPv6 form, too.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && cut(address, self.prefix_bits) == self.first
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.first, self.prefix_bits)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Form)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                prefix.parse().map_err(|_| NetworkError::Form)?
            }
            Some(_) => return Err(NetworkError::Form),
            None => bits_max,
        };
        if prefix_bits > bits_max {
            return Err(NetworkError::Prefix(bits_max));
        }
        let first = cut(address, prefix_bits);
        let network = Self { first, prefix_bits };
        match first == address {
            true => Ok(network),
            false => Err(NetworkError::NotFirst(network)),
        }
    }
}

/// An address with nothing set beyond its first bits, at most as many as it has.
fn cut(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_holds_the_addresses_with_its_prefix() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("127.0.0.1/32", "::ffff:127.0.0.1", "::1"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("::/0", "ffff::", "0.0.0.0"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(parsed.contains(address(inside)), "{network} {inside}");
            assert!(!parsed.contains(address(outside)), "{network} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_says_why() {
        for (text, error) in [
            ("10.0.0.0/33", "a network with a prefix of at most 32 bits"),
            ("::/129", "a network with a prefix of at most 128 bits"),
            ("10.0.0.1/8", "a network: its first address is 10.0.0.0/8"),
            ("10.0.0.0/", "an IP address or a network such as 10.0.0.0/8"),
            (
                "10.0.0.0/+8",
                "an IP address or a network such as 10.0.0.0/8",
            ),
            ("10.0.0/8", "an IP address or a network such as 10.0.0.0/8"),
            ("localhost", "an IP address or a network such as 10.0.0.0/8"),
            (
                "10.0.0.0/999",
                "an IP address or a network such as 10.0.0.0/8",
            ),
        ] {
            let said = text.parse::<Network>().unwrap_err().to_string();
            assert_eq!(said, error, "{text}");
        }
    }
}
