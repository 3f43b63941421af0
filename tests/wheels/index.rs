//! A package index on the loopback device that wants a password.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use gap_format::Digest;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// What must never be found in anything that is kept.
pub const SECRET: &str = "S3CRETmarker";

/// How the pages of the index look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// PEP 503.
    Html,
    /// PEP 691.
    Json,
}

#[derive(Debug, Default)]
struct Files {
    /// Offered files by name.
    listed: BTreeMap<String, Vec<u8>>,
    /// What is sent instead.
    replaced: BTreeMap<String, Vec<u8>>,
}

/// A running index.
#[derive(Debug, Clone)]
pub struct Index {
    form: Form,
    files: Arc<Mutex<Files>>,
    port: u16,
}

impl Index {
    pub fn start(form: Form) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let index = Self { form, files: Arc::default(), port };
        let serving = index.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let index = serving.clone();
                // A client that goes away in the middle is no failure.
                std::thread::spawn(move || index.serve(stream).unwrap_or_default());
            }
        });
        index
    }

    /// The address with the password in it.
    pub fn url(&self) -> String {
        format!("http://user:{SECRET}@127.0.0.1:{}/simple", self.port)
    }

    /// Offers a wheel.
    pub fn offer(&self, file: &str, bytes: Vec<u8>) {
        self.files.lock().unwrap().listed.insert(file.to_owned(), bytes);
    }

    /// Lists the wheel as before, but sends other bytes.
    pub fn replace(&self, file: &str, bytes: Vec<u8>) {
        self.files.lock().unwrap().replaced.insert(file.to_owned(), bytes);
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut out = stream;
        loop {
            let mut first = String::new();
            if reader.read_line(&mut first)? == 0 {
                return Ok(());
            }
            let mut headers = BTreeMap::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                let Some((name, value)) = line.trim_end().split_once(':') else { break };
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            let mut words = first.split_whitespace();
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let (status, extra, body) = self.answer(path, &headers);
            write!(out, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{extra}\r\n", body.len())?;
            if method != "HEAD" {
                out.write_all(&body)?;
            }
            out.flush()?;
        }
    }

    fn answer(&self, path: &str, headers: &BTreeMap<String, String>) -> (&'static str, String, Vec<u8>) {
        let login = format!("Basic {}", BASE64_STANDARD.encode(format!("user:{SECRET}")));
        if headers.get("authorization") != Some(&login) {
            return ("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n".to_owned(), Vec::new());
        }
        let files = self.files.lock().unwrap();
        if let Some(project) = path.strip_prefix("/simple/").map(|rest| rest.trim_end_matches('/')) {
            return match self.page(project, &files) {
                Some((kind, page)) => ("200 OK", format!("Content-Type: {kind}\r\n"), page.into_bytes()),
                None => ("404 Not Found", String::new(), Vec::new()),
            };
        }
        let name = path.strip_prefix("/files/").unwrap_or_default();
        let Some(bytes) = files.replaced.get(name).or_else(|| files.listed.get(name)) else {
            return ("404 Not Found", String::new(), Vec::new());
        };
        let ranges = "Accept-Ranges: bytes\r\n";
        let Some(range) = headers.get("range").and_then(|range| range.strip_prefix("bytes=")) else {
            return ("200 OK", ranges.to_owned(), bytes.clone());
        };
        let (from, to) = range.split_once('-').unwrap();
        let last = bytes.len() - 1;
        let (from, to) = match (from, to) {
            ("", count) => (bytes.len().saturating_sub(count.parse().unwrap()), last),
            (from, "") => (from.parse().unwrap(), last),
            (from, to) => (from.parse().unwrap(), to.parse::<usize>().unwrap().min(last)),
        };
        let extra = format!("{ranges}Content-Range: bytes {from}-{to}/{}\r\n", bytes.len());
        ("206 Partial Content", extra, bytes[from..=to].to_vec())
    }

    fn page(&self, project: &str, files: &Files) -> Option<(&'static str, String)> {
        let of_project = |file: &&String| file.split('-').next().unwrap().replace('_', "-") == project;
        let offered: Vec<(&String, String)> = files
            .listed
            .iter()
            .filter(|(file, _)| of_project(file))
            .map(|(file, bytes)| (file, Digest::of(bytes).to_hex()))
            .collect();
        if offered.is_empty() {
            return None;
        }
        Some(match self.form {
            Form::Html => {
                let links =
                    offered.iter().map(|(file, hex)| format!("<a href=\"../../files/{file}#sha256={hex}\">{file}</a>"));
                ("text/html", format!("<!DOCTYPE html><body>{}</body>", links.collect::<String>()))
            }
            Form::Json => {
                let entry = |(file, hex): &(&String, String)| serde_json::json!({ "filename": file, "url": format!("/files/{file}"), "hashes": { "sha256": hex } });
                let files: Vec<_> = offered.iter().map(entry).collect();
                let page = serde_json::json!({ "meta": { "api-version": "1.0" }, "name": project, "files": files });
                ("application/vnd.pypi.simple.v1+json", page.to_string())
            }
        })
    }
}

/// Reads everything below a directory and says where `needle` is.
pub fn find_bytes(directory: &std::path::Path, needle: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut ahead = vec![directory.to_owned()];
    while let Some(path) = ahead.pop() {
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            ahead.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        if memchr::memmem::find(&std::fs::read(&path).unwrap(), needle).is_some() {
            found.push(path);
        }
    }
    found
}
