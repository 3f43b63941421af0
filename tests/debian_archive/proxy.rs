//! A proxy on the loopback device.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

#[derive(Debug, Clone)]
pub struct Proxy {
    /// First line of every request, and `Proxy-Authorization` where it came.
    log: Arc<Mutex<Vec<String>>>,
    /// `HOST:PORT`.
    pub address: String,
}

impl Proxy {
    /// A proxy for which every name leads to the server at `behind`.
    pub fn start(behind: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { log: Arc::default(), address: listener.local_addr().unwrap().to_string() };
        let behind = behind.split_once("://").map_or(behind, |(_, rest)| rest).replace("localhost", "127.0.0.1");
        let serving = proxy.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (proxy, behind) = (serving.clone(), behind.clone());
                std::thread::spawn(move || proxy.pass(stream, &behind).unwrap_or_default());
            }
        });
        proxy
    }

    /// A proxy that takes connections and never says a word.
    pub fn silent() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { log: Arc::default(), address: listener.local_addr().unwrap().to_string() };
        std::thread::spawn(move || {
            let streams: Vec<TcpStream> = listener.incoming().flatten().collect();
            drop(streams);
        });
        proxy
    }

    pub fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    fn pass(&self, client: TcpStream, behind: &str) -> std::io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
        let first = head.lines().next().unwrap_or_default().to_owned();
        let authorization = head.lines().find(|line| line.to_ascii_lowercase().starts_with("proxy-authorization"));
        self.log.lock().unwrap().push(format!("{first} {}", authorization.unwrap_or_default()).trim().to_owned());
        let mut server = TcpStream::connect(behind)?;
        let mut answers = client.try_clone()?;
        if first.starts_with("CONNECT ") {
            answers.write_all(b"HTTP/1.1 200 Go ahead\r\n\r\n")?;
        } else {
            server.write_all(head.as_bytes())?;
        }
        let mut from_server = server.try_clone()?;
        std::thread::spawn(move || {
            // Whichever side goes away first ends the other.
            let _ = std::io::copy(&mut from_server, &mut answers);
            let _ = answers.shutdown(Shutdown::Both);
        });
        std::io::copy(&mut reader, &mut server)?;
        server.shutdown(Shutdown::Both)
    }
}
