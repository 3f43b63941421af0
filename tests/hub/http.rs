//! As much of HTTP/1.1 as a hub needs.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
};

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    /// First byte that was asked for.
    pub first: usize,
    pub authorization: Option<String>,
}

impl Asked {
    pub fn shown(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        let part = if self.first > 0 { format!("@{}", self.first) } else { String::new() };
        format!("{} {path}{part}", self.method)
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    cut: Option<usize>,
}

impl Answer {
    fn new(status: u16, body: Vec<u8>) -> Self {
        Self { status, headers: Vec::new(), body, cut: None }
    }

    pub fn json(value: &serde_json::Value) -> Self {
        Self::new(200, value.to_string().into_bytes()).header("Content-Type", "application/json; charset=utf-8")
    }

    pub fn page() -> Self {
        let page = b"<!doctype html><html><body>Please log in</body></html>".to_vec();
        Self::new(200, page).header("Content-Type", "text/html; charset=utf-8")
    }

    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let answer = Self::new(status, serde_json::json!({ "error": message }).to_string().into_bytes());
        match code {
            "" => answer,
            code => answer.header("X-Error-Code", code).header("X-Error-Message", message),
        }
    }

    pub fn redirect(status: u16, at: &str) -> Self {
        Self::new(status, Vec::new()).header("Location", at)
    }

    /// A file from byte `first` on.
    pub fn data(data: &[u8], first: usize) -> Self {
        let answer = match first {
            0 => Self::new(200, data.to_vec()),
            first if first >= data.len() => Self::new(416, Vec::new()),
            first => Self::new(206, data[first..].to_vec())
                .header("Content-Range", &format!("bytes {first}-{}/{}", data.len() - 1, data.len())),
        };
        answer.header("Content-Type", "application/octet-stream").header("Accept-Ranges", "bytes")
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Ends after so many bytes of the body.
    pub fn cut(mut self, at: usize) -> Self {
        self.cut = Some(at);
        self
    }

    /// Whether the connection stays usable.
    fn send(&self, mut stream: &TcpStream, head_only: bool) -> std::io::Result<bool> {
        let mut head = format!("HTTP/1.1 {} Some\r\nContent-Length: {}\r\n", self.status, self.body.len());
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if head_only {
            return Ok(true);
        }
        match self.cut.filter(|&cut| cut < self.body.len()) {
            Some(cut) => {
                stream.write_all(&self.body[..cut])?;
                stream.shutdown(std::net::Shutdown::Both)?;
                Ok(false)
            }
            None => stream.write_all(&self.body).map(|()| true),
        }
    }
}

/// Serves on a port of its own until the program ends; gives the address.
pub fn serve(answer: impl Fn(Asked) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            // A client that goes away in the middle is part of the tests.
            std::thread::spawn(move || converse(&stream, &*answer).unwrap_or_default());
        }
    });
    url
}

fn converse(stream: &TcpStream, answer: &dyn Fn(Asked) -> Answer) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(asked) = read(&mut reader)? {
        let head_only = asked.method == "HEAD";
        if !answer(asked).send(stream, head_only)? {
            break;
        }
    }
    Ok(())
}

fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut asked = Asked { method, path, first: 0, authorization: None };
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            return Ok(Some(asked));
        }
        let Some((name, value)) = header.split_once(':') else { continue };
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("authorization", value) => asked.authorization = Some(value.to_owned()),
            ("range", value) => {
                let first = value.trim_start_matches("bytes=").split('-').next().unwrap_or_default();
                asked.first = first.parse().unwrap_or(0);
            }
            _ => {}
        }
    }
}
