//! A running server, and plain requests to it.

#![allow(dead_code, reason = "each test uses a part of it")]

use crate::reference::{TEMPLATE, write_adapter, write_model};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Tokens of an answer that no test waits for.
pub const ENDLESS: usize = 100_000;

/// A server on a socket in a directory of its own. It ends with this value.
pub struct Server {
    child: Child,
    socket: PathBuf,
    address: String,
    warned: String,
    /// Kept open: the server must be able to say more.
    _said: BufReader<ChildStderr>,
    _directory: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The pieces of a stream, which must end as OpenAI's do.
    pub fn pieces(&self) -> Vec<Value> {
        let body = self.body.strip_suffix("data: [DONE]\n\n").unwrap_or_else(|| panic!("{self:?}"));
        body.split_terminator("\n\n")
            .map(|piece| serde_json::from_str(piece.strip_prefix("data: ").unwrap()).unwrap())
            .collect()
    }
}

/// Writes a model that can chat.
pub fn write_chat_model(name: &str, at: &Path) {
    write_model(name, at);
    let config = json!({"bos_token": "<|begin|>", "eos_token": "<|end|>", "chat_template": TEMPLATE});
    fs::write(at.join("tokenizer_config.json"), config.to_string()).unwrap();
    fs::write(at.join("generation_config.json"), json!({"eos_token_id": [1, 3]}).to_string()).unwrap();
}

/// Writes an encoder; `architecture` decides what it is served for.
pub fn write_encoder(name: &str, architecture: &str, at: &Path) {
    write_model(name, at);
    let path = at.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["architectures"] = json!([architecture]);
    fs::write(path, config.to_string()).unwrap();
}

/// A file of the references.
pub fn reference_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lm/tests/reference").join(name)
}

/// What the program says when it does not start.
pub fn complaint(arguments: &[String]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_gap-serve")).args(arguments).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// Sends a signal to a program.
pub fn send_signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// A streamed answer of so many tokens, of which the first piece has come; and what was read of it.
pub fn begin(server: &Server, tokens: usize) -> (UnixStream, Vec<u8>) {
    let request = json!({"model": "chat", "prompt": "Hello", "max_tokens": tokens, "ignore_eos": true, "stream": true});
    let mut stream = server.send("POST", "/v1/completions", "application/json", request.to_string().as_bytes());
    let mut seen = Vec::new();
    while !seen.windows(6).any(|bytes| bytes == b"data: ") {
        let mut bytes = [0; 64];
        let count = stream.read(&mut bytes).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&bytes[..count]);
    }
    (stream, seen)
}

impl Server {
    /// All kinds of models, in a network namespace with nothing in it.
    pub fn with_everything(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        write_chat_model("qwen3", &at("chat"));
        write_encoder("bert", "BertModel", &at("embed"));
        write_encoder("distilbert", "DistilBertForSequenceClassification", &at("classify"));
        let shapes = [(4, 64), (96, 4)];
        let values = [("a", 256), ("b", 384)].map(|(name, count)| crate::reference::weights(name, &[count / 4, 4]));
        write_adapter(&at("adapter"), "model.layers.1.self_attn.q_proj", shapes, [&values[0], &values[1]], 64.0);
        let model = |name: &str| format!("--model={name}={}", at(name).display());
        let mut arguments = vec![model("chat"), model("embed"), model("classify")];
        arguments.push(format!("--adapter=tuned=chat:{}", at("adapter").display()));
        arguments.extend(more.iter().map(ToString::to_string));
        Self::start(directory, &arguments)
    }

    /// One model that chats.
    pub fn with_chat(name: &str, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_chat_model(name, &directory.path().join("chat"));
        let mut arguments = vec![format!("--model=chat={}", directory.path().join("chat").display())];
        arguments.extend(more.iter().map(ToString::to_string));
        Self::start(directory, &arguments)
    }

    /// One model whose answers take as long as a test may want: nothing that it is asked for ends by itself.
    pub fn with_endless_chat(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let model = directory.path().join("chat");
        write_chat_model("llama", &model);
        let path = model.join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["max_position_embeddings"] = json!(ENDLESS + 100);
        fs::write(path, config.to_string()).unwrap();
        let mut arguments = vec![format!("--model=chat={}", model.display())];
        arguments.extend(more.iter().map(ToString::to_string));
        Self::start(directory, &arguments)
    }

    /// All kinds of models, on the loopback interface.
    pub fn on_loopback() -> Self {
        Self::with_everything(&["--listen=127.0.0.1:0"])
    }

    /// A model that lies elsewhere.
    pub fn with_model(name: &str, path: &Path) -> Self {
        Self::start(tempfile::tempdir().unwrap(), &[format!("--model={name}={}", path.display())])
    }

    /// Whatever these arguments say.
    pub fn with_arguments(arguments: &[String]) -> Self {
        Self::start(tempfile::tempdir().unwrap(), arguments)
    }

    /// What it said before it listened.
    pub fn warned(&self) -> &str {
        &self.warned
    }

    /// Where it listens on the loopback interface.
    pub fn url(&self) -> &str {
        self.address.strip_prefix("gap-serve listens on ").unwrap()
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        UnixStream::connect(&self.socket).is_ok() || Path::new(&format!("/proc/{}", self.child.id())).exists()
    }

    /// Tells it to stop.
    pub fn terminate(&self) {
        send_signal(&self.child, "-TERM");
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    fn start(directory: tempfile::TempDir, arguments: &[String]) -> Self {
        let socket = directory.path().join("socket");
        let loopback = arguments.iter().any(|argument| argument.starts_with("--listen"));
        let program = env!("CARGO_BIN_EXE_gap-serve");
        let mut command = Command::new(if loopback { program } else { "unshare" });
        if !loopback {
            command.args([
                "--user",
                "--map-root-user",
                "--net",
                program,
                &format!("--listen=unix:{}", socket.display()),
            ]);
        }
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let (mut address, mut warned) = (String::new(), String::new());
        while !address.starts_with("gap-serve listens on ") {
            warned += &address;
            address.clear();
            if said.read_line(&mut address).unwrap() == 0 {
                panic!("the server ended with {}: {warned}", child.wait().unwrap());
            }
        }
        Self { child, socket, address: address.trim().to_owned(), warned, _said: said, _directory: directory }
    }

    /// Sends a request and leaves the connection open.
    pub fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> UnixStream {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let head =
            format!("{method} {path} HTTP/1.0\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses may close before it has read all.
        drop(stream.write_all(body));
        stream
    }

    pub fn raw(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Reply {
        let mut reply = Vec::new();
        drop(self.send(method, path, kind, body).read_to_end(&mut reply));
        let reply = String::from_utf8(reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {reply:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    pub fn get(&self, path: &str) -> Reply {
        self.raw("GET", path, "", b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.raw("POST", path, "application/json", body.to_string().as_bytes())
    }

    /// What must succeed, as JSON.
    pub fn ask(&self, path: &str, body: &Value) -> Value {
        let reply = self.post(path, body);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// A measurement.
    pub fn measured(&self, name: &str) -> u64 {
        let text = self.get("/metrics").body;
        let line =
            text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{name}: {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until a measurement is something.
    pub fn wait_until(&self, name: &str, value: u64) {
        let begin = Instant::now();
        while self.measured(name) != value {
            assert!(begin.elapsed() < Duration::from_secs(60), "{name} is {} and not {value}", self.measured(name));
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
