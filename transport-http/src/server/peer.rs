//! Who is at the other end: the connection's address, or what a trusted proxy says.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::HeaderMap;

/// The address at the other end of the connection that a request came by. [`super::Server::serve`] sets it as an extension;
/// whoever embeds the router may set it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// A range of addresses, written `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: u128,
    /// How many leading bits of the address (as IPv6) count.
    bits: u8,
}

/// A text was not a [`Network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address or a range of addresses such as 10.0.0.0/8")]
pub struct ParseNetworkError;

/// Every address as IPv6, so that a mapped IPv4 address is the same as the plain one.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Network {
    /// Whether an address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = 128 - u32::from(self.bits);
        let leading = |n: u128| n.checked_shr(shift).unwrap_or(0);
        leading(number(address)) == leading(self.address)
    }
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| ParseNetworkError)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ParseNetworkError)?;
        let (width, before) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        match bits.unwrap_or(width) {
            bits if bits <= width => Ok(Self { address: number(address), bits: before + bits }),
            _ => Err(ParseNetworkError),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", std::net::Ipv6Addr::from_bits(self.address), self.bits)
    }
}

/// Whose request it is: the peer's, or, as long as the peer is a trusted proxy, whom it says it speaks for. The header is
/// read from its end, where the nearest proxy wrote, so that nobody can put another's address in front.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if trusted.is_empty() || !is_trusted(peer) {
        return peer;
    }
    let lines = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
    let hops: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    let mut client = peer;
    for hop in hops.into_iter().rev() {
        let Ok(address) = hop.parse() else { break };
        client = address;
        if !is_trusted(address) {
            break;
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<Network> = ["10.0.0.0/8", "::1"].map(|n| n.parse().unwrap()).into();
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "6.6.6.6, 1.2.3.4".parse().unwrap());
        headers.append("x-forwarded-for", "10.1.1.1".parse().unwrap());
        let client = |peer: &str| client(peer.parse().unwrap(), &headers, &trusted).to_string();
        assert_eq!(client("10.9.9.9"), "1.2.3.4");
        assert_eq!(client("::1"), "1.2.3.4");
        assert_eq!(client("::ffff:10.9.9.9"), "1.2.3.4");
        assert_eq!(client("11.9.9.9"), "11.9.9.9");
    }

    #[test]
    fn networks_are_read_strictly() {
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "a", "1.2.3.4/", "1.2.3.4/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        assert!("::/0".parse::<Network>().unwrap().contains("1.2.3.4".parse().unwrap()));
        assert!(!"1.2.3.4".parse::<Network>().unwrap().contains("1.2.3.5".parse().unwrap()));
    }
}
