//! DHCP messages: the ones that the client sends, and what it takes from those that it hears.

use super::super::Addressing;
use dhcproto::{
    Decodable, Decoder, Encodable, Encoder,
    v4::{DhcpOption, Flags, HType, Message, MessageType, Opcode, OptionCode},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

/// UDP port of clients.
pub const CLIENT_PORT: u16 = 68;
/// UDP port of servers.
pub const SERVER_PORT: u16 = 67;
/// Longest message that is read, in bytes.
pub const MAX_LEN: usize = 1500;
/// Most name servers that are taken.
const MAX_DNS: usize = 8;
/// A lease without an end, or with one that is absurdly far, is renewed at least as if it lasted this long.
const LONGEST_LEASE: u32 = 7 * 24 * 3600;
/// Shortest lease that is believed, in seconds.
const SHORTEST_LEASE: u32 = 60;
/// Bytes before the options: the fixed fields and the magic cookie (RFC 2131, 2 and 3).
const FIXED_LEN: usize = 240;
/// Options that are read, by code, and their length; `None` for lists of addresses (RFC 2132).
const READ: [(u8, Option<usize>); 8] =
    [(1, Some(4)), (3, None), (6, None), (51, Some(4)), (53, Some(1)), (54, Some(4)), (58, Some(4)), (59, Some(4))];
/// Options without a length: what fills, and what ends them.
const PAD: u8 = 0;
const END: u8 = 255;
/// Bytes of an Ethernet address.
const HARDWARE_ADDRESS_LEN: u8 = 6;

/// What a server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Address, prefix, router, name servers.
    pub addressing: Addressing,
    /// The server.
    pub server: Ipv4Addr,
    /// For how long.
    pub terms: Terms,
}

/// Times of a lease, from when it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// When the server is asked for more time.
    pub renew: Duration,
    /// When any server is asked.
    pub rebind: Duration,
    /// When the address may not be used any more.
    pub end: Duration,
}

/// An answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// What could be had.
    Offer(Lease),
    /// What is given.
    Acknowledged(Lease),
    /// Nothing is given.
    Refused,
}

/// Asks all servers what they have.
pub fn discover(id: u32, hardware_address: &[u8]) -> Result<Vec<u8>, String> {
    encode(base(id, hardware_address, MessageType::Discover).set_flags(Flags::default().set_broadcast()))
}

/// Takes an offer; all servers hear it.
pub fn request(id: u32, hardware_address: &[u8], offer: &Lease) -> Result<Vec<u8>, String> {
    let mut message = base(id, hardware_address, MessageType::Request);
    message.set_flags(Flags::default().set_broadcast());
    message.opts_mut().insert(DhcpOption::RequestedIpAddress(offer.addressing.address));
    message.opts_mut().insert(DhcpOption::ServerIdentifier(offer.server));
    encode(&message)
}

/// Asks for more time, from the address that is in use.
pub fn renew(id: u32, hardware_address: &[u8], lease: &Lease) -> Result<Vec<u8>, String> {
    encode(base(id, hardware_address, MessageType::Request).set_ciaddr(lease.addressing.address))
}

fn base(id: u32, hardware_address: &[u8], kind: MessageType) -> Message {
    let mut message = Message::default();
    message.set_opcode(Opcode::BootRequest).set_htype(HType::Eth).set_xid(id);
    message.set_chaddr(hardware_address.get(..16).unwrap_or(hardware_address));
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::MaxMessageSize(u16::try_from(MAX_LEN).unwrap_or(u16::MAX)));
    options.insert(DhcpOption::ParameterRequestList(vec![
        OptionCode::SubnetMask,
        OptionCode::Router,
        OptionCode::DomainNameServer,
        OptionCode::AddressLeaseTime,
        OptionCode::Renewal,
        OptionCode::Rebinding,
    ]));
    message
}

fn encode(message: &Message) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Reads an answer; `None` when it is not for this client and transaction, or is not usable.
pub fn read(bytes: &[u8], id: u32, hardware_address: &[u8]) -> Option<Reply> {
    let message = Message::decode(&mut Decoder::new(&bare(bytes)?)).ok()?;
    // The length is what the sender says; the decoder does not hold it to the field's 16 bytes, and panics at more.
    if message.hlen() != HARDWARE_ADDRESS_LEN {
        return None;
    }
    if message.opcode() != Opcode::BootReply || message.xid() != id || message.chaddr() != hardware_address {
        return None;
    }
    match message.opts().msg_type()? {
        MessageType::Offer => lease(&message).map(Reply::Offer),
        MessageType::Ack => lease(&message).map(Reply::Acknowledged),
        MessageType::Nak => Some(Reply::Refused),
        _ => None,
    }
}

/// The message with those options alone that are read, each once and of its length: the decoder knows a hundred others, and
/// asserts of some that the sender kept to their length.
fn bare(bytes: &[u8]) -> Option<Vec<u8>> {
    let (fixed, mut options) = bytes.split_at_checked(FIXED_LEN)?;
    let mut bare = fixed.to_vec();
    let mut seen = BTreeSet::new();
    while let Some((&code, rest)) = options.split_first() {
        options = match code {
            PAD => rest,
            END => break,
            _ => {
                let (&length, rest) = rest.split_first()?;
                let (value, rest) = rest.split_at_checked(length.into())?;
                let is_read = READ.iter().any(|(read, wanted)| {
                    *read == code && wanted.map_or(value.len().is_multiple_of(4), |wanted| value.len() == wanted)
                });
                if is_read && seen.insert(code) {
                    bare.extend([code, length]);
                    bare.extend(value);
                }
                rest
            }
        };
    }
    bare.push(END);
    Some(bare)
}

fn lease(message: &Message) -> Option<Lease> {
    let options = message.opts();
    let address = message.yiaddr();
    let Some(DhcpOption::ServerIdentifier(server)) = options.get(OptionCode::ServerIdentifier) else { return None };
    let prefix = match options.get(OptionCode::SubnetMask) {
        Some(DhcpOption::SubnetMask(mask)) => prefix(*mask)?,
        _ => return None,
    };
    let gateway = match options.get(OptionCode::Router) {
        Some(DhcpOption::Router(routers)) => routers.first().copied().filter(|router| is_host(*router)),
        _ => None,
    };
    let dns = match options.get(OptionCode::DomainNameServer) {
        Some(DhcpOption::DomainNameServer(servers)) => {
            servers.iter().copied().filter(|server| is_host(*server)).map(IpAddr::V4).take(MAX_DNS).collect()
        }
        _ => Vec::new(),
    };
    if !is_host(address) || !is_host(*server) {
        return None;
    }
    Some(Lease { addressing: Addressing { address, prefix, gateway, dns }, server: *server, terms: terms(message) })
}

/// RFC 2131, 4.4.5: by default renewal after half and rebinding after seven eighths of the time.
fn terms(message: &Message) -> Terms {
    let options = message.opts();
    let end = match options.get(OptionCode::AddressLeaseTime) {
        Some(DhcpOption::AddressLeaseTime(seconds)) => (*seconds).clamp(SHORTEST_LEASE, LONGEST_LEASE),
        _ => SHORTEST_LEASE,
    };
    let rebind = match options.get(OptionCode::Rebinding) {
        Some(DhcpOption::Rebinding(seconds)) if *seconds < end => *seconds,
        _ => end - end / 8,
    };
    let renew = match options.get(OptionCode::Renewal) {
        Some(DhcpOption::Renewal(seconds)) if *seconds < rebind => *seconds,
        _ => (end / 2).min(rebind),
    };
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    Terms { renew: seconds(renew), rebind: seconds(rebind), end: seconds(end) }
}

/// Length of a network mask's run of ones; `None` when it is no mask.
fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let bits = mask.to_bits();
    let ones = bits.leading_ones();
    (ones == bits.count_ones() && ones > 0).then(|| u8::try_from(ones).unwrap_or(32))
}

/// Whether it can be the address of a machine.
fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast() || address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn answer(change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::default();
        message.set_opcode(Opcode::BootReply).set_xid(7).set_chaddr(&MAC).set_yiaddr([10, 0, 2, 15]);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(MessageType::Offer));
        options.insert(DhcpOption::ServerIdentifier([10, 0, 2, 2].into()));
        options.insert(DhcpOption::SubnetMask([255, 255, 255, 0].into()));
        options.insert(DhcpOption::Router(vec![[10, 0, 2, 2].into()]));
        options.insert(DhcpOption::AddressLeaseTime(86_400));
        change(&mut message);
        encode(&message).unwrap()
    }

    #[test]
    fn an_offer_is_understood() {
        let Some(Reply::Offer(lease)) = read(&answer(|_| {}), 7, &MAC) else { panic!("no offer") };
        assert_eq!(lease.addressing.address, Ipv4Addr::new(10, 0, 2, 15));
        assert_eq!((lease.addressing.prefix, lease.addressing.gateway), (24, Some([10, 0, 2, 2].into())));
        assert_eq!((lease.terms.renew.as_secs(), lease.terms.rebind.as_secs()), (43_200, 75_600));
    }

    #[test]
    fn answers_to_others_and_useless_ones_are_ignored() {
        assert_eq!(read(&answer(|_| {}), 8, &MAC), None);
        assert_eq!(read(&answer(|_| {}), 7, &[1; 6]), None);
        for change in [
            |message: &mut Message| {
                message.set_yiaddr([0, 0, 0, 0]);
            },
            |message: &mut Message| {
                message.set_yiaddr([127, 0, 0, 1]);
            },
            |message: &mut Message| drop(message.opts_mut().insert(DhcpOption::SubnetMask([255, 0, 255, 0].into()))),
            |message: &mut Message| drop(message.opts_mut().remove(OptionCode::ServerIdentifier)),
            |message: &mut Message| {
                message.set_opcode(Opcode::BootRequest);
            },
        ] {
            assert_eq!(read(&answer(change), 7, &MAC), None);
        }
    }

    #[test]
    fn absurd_times_become_bearable_ones() {
        for (seconds, expected) in [(0, SHORTEST_LEASE), (u32::MAX, LONGEST_LEASE)] {
            let bytes = answer(|message| drop(message.opts_mut().insert(DhcpOption::AddressLeaseTime(seconds))));
            let Some(Reply::Offer(lease)) = read(&bytes, 7, &MAC) else { panic!("no offer") };
            assert_eq!(lease.terms.end.as_secs(), u64::from(expected));
            assert!(lease.terms.renew <= lease.terms.rebind && lease.terms.rebind <= lease.terms.end);
        }
    }

    #[test]
    fn a_hardware_address_of_another_length_is_not_ours() {
        let bytes = answer(|_| {});
        for length in 0..=u8::MAX {
            let mut altered = bytes.clone();
            // RFC 2131, 2: op, htype, hlen.
            altered[2] = length;
            assert_eq!(read(&altered, 7, &MAC).is_some(), length == HARDWARE_ADDRESS_LEN, "{length}");
        }
    }

    #[test]
    fn an_answer_with_any_one_byte_altered_is_read_without_harm() {
        let bytes = answer(|_| {});
        for at in 0..bytes.len() {
            for value in 0..=u8::MAX {
                let mut altered = bytes.clone();
                altered[at] = value;
                // What comes of it differs; that something does is what counts.
                drop(read(&altered, 7, &MAC));
            }
        }
    }

    #[test]
    fn an_option_that_was_not_asked_for_is_not_even_decoded() {
        let bytes = answer(|_| {});
        let expected = read(&bytes, 7, &MAC);
        // A route to a network of 255 bits (RFC 3442), and options of all codes with a length that few have.
        let mut options = vec![vec![121, 9, 255, 10, 0, 0, 0, 10, 0, 2, 2]];
        options
            .extend((0..=u8::MAX).filter(|code| ![0, 53, 255].contains(code)).map(|code| vec![code, 3, 255, 255, 255]));
        for option in options {
            let mut altered = bytes[..FIXED_LEN].to_vec();
            altered.extend(&option);
            altered.extend(&bytes[FIXED_LEN..]);
            assert_eq!(read(&altered, 7, &MAC), expected, "{option:?}");
        }
    }

    #[test]
    fn any_truncation_of_an_answer_is_refused_without_harm() {
        let bytes = answer(|_| {});
        for length in 0..bytes.len().min(240) {
            assert_eq!(read(&bytes[..length], 7, &MAC), None);
        }
    }
}
