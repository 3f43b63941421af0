//! Interfaces, addresses and routes, by netlink.

use super::Addressing;
use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::AddressAttribute,
        link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
    },
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};
use tokio::task::JoinHandle;

/// A conversation with the kernel about interfaces.
#[derive(Debug)]
pub struct Links {
    handle: Handle,
    conversation: JoinHandle<()>,
}

/// What the kernel answered.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// A request was refused.
    #[error(transparent)]
    Refused(#[from] rtnetlink::Error),
    /// The interface is not there.
    #[error("there is no interface of that name")]
    Missing,
}

impl Links {
    /// Opens the conversation.
    ///
    /// # Errors
    /// What the system said.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, conversation: tokio::spawn(connection) })
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// [`NetlinkError`] when it is not there or the kernel refuses.
    pub async fn up(&self, name: &str) -> Result<(), NetlinkError> {
        let index = self.get(name).await?.header.index;
        Ok(self.handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?)
    }

    /// The wanted interface when it is there, or else the wired one with the lowest index.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] when the kernel does not list its interfaces.
    pub async fn find_wired(&self, wanted: Option<&str>) -> Result<Option<String>, NetlinkError> {
        let mut links: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await?;
        links.sort_unstable_by_key(|link| link.header.index);
        let found = links.iter().find(|link| match wanted {
            Some(wanted) => name(link) == Some(wanted),
            None => is_wired(link),
        });
        Ok(found.and_then(name).map(str::to_owned))
    }

    /// Hardware address of an interface.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`] when it has none or is not there.
    pub async fn hardware_address(&self, name: &str) -> Result<Vec<u8>, NetlinkError> {
        let link = self.get(name).await?;
        let address = link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(address) if !address.is_empty() => Some(address),
            _ => None,
        });
        address.ok_or(NetlinkError::Missing)
    }

    /// Gives the interface this address, and takes away every other IPv4 address of it.
    ///
    /// # Errors
    /// [`NetlinkError`] when the interface is gone or the kernel refuses.
    pub async fn assign(&self, name: &str, addressing: &Addressing) -> Result<(), NetlinkError> {
        let index = self.get(name).await?.header.index;
        self.remove_addresses(index, Some(addressing.address)).await?;
        Ok(self.handle.address().add(index, addressing.address.into(), addressing.prefix).replace().execute().await?)
    }

    /// Leads what is for other networks to this gateway, through the interface.
    ///
    /// # Errors
    /// [`NetlinkError`] when the interface is gone or the kernel refuses.
    pub async fn route(&self, name: &str, gateway: Ipv4Addr) -> Result<(), NetlinkError> {
        let index = self.get(name).await?.header.index;
        // On-link: some networks, those with a /32 address for one, have a gateway outside of the prefix.
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).onlink().build();
        Ok(self.handle.route().add(route).replace().execute().await?)
    }

    /// Whether the interface is there, up, and has this address.
    ///
    /// # Errors
    /// [`NetlinkError`] when the interface is gone or the kernel does not say.
    pub async fn has(&self, name: &str, address: Ipv4Addr) -> Result<bool, NetlinkError> {
        let header = self.get(name).await?.header;
        let addresses = self.handle.address().get().set_link_index_filter(header.index).execute();
        let addresses: Vec<_> = addresses.try_collect().await?;
        let is_it = |attribute: &AddressAttribute| *attribute == AddressAttribute::Local(IpAddr::V4(address));
        let is_assigned =
            addresses.iter().any(|found| found.header.index == header.index && found.attributes.iter().any(is_it));
        Ok(header.flags.contains(LinkFlags::Up) && is_assigned)
    }

    /// Takes away every IPv4 address of the interface; its routes go with them.
    ///
    /// # Errors
    /// [`NetlinkError`] when the interface is gone or the kernel refuses.
    pub async fn clear(&self, name: &str) -> Result<(), NetlinkError> {
        let index = self.get(name).await?.header.index;
        self.remove_addresses(index, None).await
    }

    async fn remove_addresses(&self, index: u32, keep: Option<Ipv4Addr>) -> Result<(), NetlinkError> {
        let addresses = self.handle.address().get().set_link_index_filter(index).execute();
        let addresses: Vec<_> = addresses.try_collect().await?;
        for address in addresses {
            let is_kept = |attribute: &AddressAttribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(found)) => Some(*found) == keep,
                _ => false,
            };
            let is_this_interface = address.header.index == index && address.header.family == AddressFamily::Inet;
            if is_this_interface && !address.attributes.iter().any(is_kept) {
                self.handle.address().del(address).execute().await?;
            }
        }
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<LinkMessage, NetlinkError> {
        let mut found = self.handle.link().get().match_name(name).execute();
        found.try_next().await?.ok_or(NetlinkError::Missing)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.conversation.abort();
    }
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// Whether it is an Ethernet device and neither loopback nor something made by software (a bridge, a tunnel, …).
fn is_wired(link: &LinkMessage) -> bool {
    let is_made = link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::LinkInfo(_)));
    link.header.link_layer_type == LinkLayerType::Ether && !link.header.flags.contains(LinkFlags::Loopback) && !is_made
}
