//! Asking a proxy for a whole address. The library asks servers for a path only; between it and the connection, the first
//! line of each request is completed here.

use std::io;
use ureq::{
    Error,
    unversioned::transport::{Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport},
};

/// Connects to proxies, which are then asked for whole `http://` addresses: path from the first line, host from `Host`.
#[derive(Debug, Default)]
pub(super) struct ForwardConnector(DefaultConnector);

impl Connector<()> for ForwardConnector {
    type Out = Forward;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<()>) -> Result<Option<Forward>, Error> {
        Ok(self.0.connect(details, chained)?.map(Forward))
    }
}

/// A connection to a proxy.
#[derive(Debug)]
pub(super) struct Forward(Box<dyn Transport>);

impl Transport for Forward {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let output = self.0.buffers().output();
        let completed = output.get(..amount).and_then(complete);
        let room = completed.as_ref().and_then(|head| output.get_mut(..head.len()));
        match (completed.as_ref(), room) {
            (Some(head), Some(room)) => room.copy_from_slice(head),
            _ => return Err(Error::Io(io::Error::other("the request cannot be passed on to a proxy"))),
        }
        self.0.transmit_output(completed.map_or(0, |head| head.len()), timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

/// The head of a request, with the whole address in its first line; `None` if it is not the whole head of one.
fn complete(head: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(head).ok().filter(|text| text.ends_with("\r\n\r\n"))?;
    let rest = text.strip_prefix("GET /")?;
    let fields = text.lines().filter_map(|line| line.split_once(": "));
    let host = fields.into_iter().find_map(|(name, value)| name.eq_ignore_ascii_case("host").then_some(value))?;
    Some(format!("GET http://{host}/{rest}").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_whole_address() {
        let head = b"GET /debian/x?y HTTP/1.1\r\naccept: */*\r\nhost: mirror.example:81\r\n\r\n";
        let expected =
            b"GET http://mirror.example:81/debian/x?y HTTP/1.1\r\naccept: */*\r\nhost: mirror.example:81\r\n\r\n";
        assert_eq!(complete(head).unwrap(), expected);
    }

    #[test]
    fn what_is_no_whole_head_is_not_passed_on() {
        for head in
            ["GET / HTTP/1.1\r\nhost: a\r\n", "GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nhost: a\r\n\r\n", ""]
        {
            assert_eq!(complete(head.as_bytes()), None, "{head:?}");
        }
    }
}
