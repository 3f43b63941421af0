//! Addresses of PCI functions.

use serde::{Serialize, Serializer};
use std::{fmt, str::FromStr};

/// Domain, bus, device and function: `0000:3b:00.0`.
///
/// The kernel writes the domain with four digits, NVML with eight and in capitals (`00000000:3B:00.0`); here they are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// What is no address of a PCI function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no PCI address such as 0000:3b:00.0")]
pub struct AddressError(String);

impl FromStr for PciAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (slot, function) = text.rsplit_once('.')?;
            let mut parts = slot.splitn(3, ':');
            let domain = hex(parts.next()?, 8)?;
            let bus = hex(parts.next()?, 2)?;
            let device = hex(parts.next()?, 2).filter(|&device| device < 32)?;
            let function = hex(function, 1).filter(|&function| function < 8)?;
            Some(Self {
                domain,
                bus: bus.try_into().ok()?,
                device: device.try_into().ok()?,
                function: function.try_into().ok()?,
            })
        };
        parse().ok_or_else(|| AddressError(text.to_owned()))
    }
}

/// A number of at most so many hexadecimal digits, without sign.
fn hex(text: &str, digits: usize) -> Option<u32> {
    let fits = (1..=digits).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    fits.then(|| u32::from_str_radix(text, 16).ok())?
}

impl PciAddress {
    /// As NVML and NVIDIA's tools write it.
    pub fn to_nvml(self) -> String {
        let Self { domain, bus, device, function } = self;
        format!("{domain:08X}:{bus:02X}:{device:02X}.{function:X}")
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(formatter, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

impl Serialize for PciAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernels_and_nvmls_spelling_are_one_address() {
        let kernel: PciAddress = "0000:3b:00.0".parse().unwrap();
        assert_eq!("00000000:3B:00.0".parse(), Ok(kernel));
        assert_eq!(kernel.to_string(), "0000:3b:00.0");
        assert_eq!(kernel.to_nvml(), "00000000:3B:00.0");
        assert_eq!("10000:e1:1f.7".parse::<PciAddress>().unwrap().to_string(), "10000:e1:1f.7");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "3b:00.0", "0000:3b:00", "0000:3b:20.0", "0000:3b:00.8", "0000:+b:00.0", "0000:3b:00.0/.."] {
            assert!(text.parse::<PciAddress>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            if let Ok(address) = text.parse::<PciAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
