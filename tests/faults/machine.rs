//! A virtual machine that is switched on, cut from its power and switched on again, with its data disk.

use crate::{client::Client, fixture};
use gap_format::Digest;
use serde_json::Value;
use std::{
    fs::{self, File},
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Longest that a machine may take to become ready; emulation on busy processors is slow.
const READY: Duration = Duration::from_secs(300);

/// The appliance whose jobs misbehave, built and signed once.
pub fn artifact() -> &'static Path {
    static ARTIFACT: OnceLock<PathBuf> = OnceLock::new();
    ARTIFACT.get_or_init(|| {
        let directory = fixture::cache().join("faults");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let keys = fixture::keygen(&directory.join("keys"));
        let artifact = directory.join("faults.gap");
        let mut build = fixture::gapimage();
        build.args(["build", "tests/faults/recipe.toml", "-o"]).arg(&artifact).arg("--trust").arg(&keys.trust);
        fixture::succeed(build.current_dir(fixture::repository()));
        fixture::succeed(fixture::gapimage().arg("sign").arg(&artifact).arg("--key").arg(&keys.key));
        artifact
    })
}

/// A site: what a machine is told, and the disk that it keeps.
pub struct Site {
    directory: TempDir,
    port: u16,
    /// An admin's.
    pub client: Client,
    certificate: String,
}

impl Site {
    /// A site with an empty disk of this many MiB.
    pub fn new(disk: u64) -> Self {
        let directory = TempDir::new().unwrap();
        let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let token = fixture::letters(40);
        let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        let hash = Digest::of(token.as_bytes()).to_hex();
        let site = format!(
            "[network]\nmode = \"static\"\naddress = \"10.0.2.15\"\nprefix = 24\n[api]\ntoken_sha256 = \"{hash}\"\n\
             [data]\ndisk = \"gapdata\"\n[tls]\ncertificate = '''\n{certificate}'''\nkey = '''\n{key}'''\n"
        );
        fs::write(directory.path().join("site.toml"), site).unwrap();
        File::create(directory.path().join("data.img")).unwrap().set_len(disk << 20).unwrap();
        // Free now; nobody else here takes ports of this range by chance.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = Client::new(&format!("https://127.0.0.1:{port}"), Some(&certificate), &token).unwrap();
        Self { directory, port, client, certificate }
    }

    /// A client with a wrong token.
    pub fn stranger(&self) -> Client {
        let url = format!("https://127.0.0.1:{}", self.port);
        Client::new(&url, Some(&self.certificate), &fixture::letters(39)).unwrap()
    }

    /// A file of this site.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Switches the machine on and waits until it takes jobs.
    pub fn switch_on(&self) -> Machine {
        let console = self.file("console");
        let mut boot = fixture::gapimage();
        boot.arg("boot").arg(artifact()).arg("--port").arg(self.port.to_string());
        boot.arg("--data").arg(self.file("data.img")).arg("--site").arg(self.file("site.toml"));
        let output = File::options().create(true).append(true).open(&console).unwrap();
        boot.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let machine = Machine { child: boot.spawn().unwrap() };
        if let Err(error) = self.client.wait_until_ready(READY) {
            panic!("{error}\n{}", fs::read_to_string(console).unwrap());
        }
        machine
    }

    /// Runs a declared job, with these fields besides. Gives its name.
    #[track_caller]
    pub fn run(&self, job: &str, more: Value) -> String {
        let mut body = serde_json::json!({"kind": "run", "job": job});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.client.post("/v1/appliance/jobs", &body).unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a job is in one of these states, and gives it.
    #[track_caller]
    pub fn wait(&self, job: &str, states: &[&str]) -> Value {
        self.wait_within(Duration::from_secs(180), job, states)
    }

    /// Waits no longer than this.
    #[track_caller]
    pub fn wait_within(&self, limit: Duration, job: &str, states: &[&str]) -> Value {
        let path = format!("/v1/appliance/jobs/{job}");
        let wanted = |job: &Value| states.contains(&job["state"].as_str().unwrap()).then(|| job.clone());
        let found = self.client.wait_for(&path, Some(limit), wanted);
        found.unwrap_or_else(|error| panic!("{error}: {:?}\n{}", self.client.get(&path), self.log(job)))
    }

    /// What a job printed.
    pub fn log(&self, job: &str) -> String {
        let page = self.client.get(&format!("/v1/appliance/jobs/{job}/log?after=0")).unwrap();
        let lines = page["lines"].as_array().unwrap().iter();
        lines.map(|line| format!("{}\n", line["text"].as_str().unwrap())).collect()
    }

    /// A job that runs after all that happened: the appliance works.
    #[track_caller]
    pub fn still_works(&self) {
        let job = self.run("nothing", serde_json::json!({}));
        let ended = self.wait(&job, OVER);
        assert_eq!(ended["state"], "succeeded", "{ended}\n{}", self.log(&job));
    }
}

/// States that last.
pub const OVER: &[&str] = &["succeeded", "failed", "cancelled"];

/// A machine that runs. Dropping it cuts its power.
pub struct Machine {
    child: Child,
}

impl Machine {
    /// Waits until it has switched itself off.
    pub fn wait_until_off(mut self) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the machine does not switch itself off");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for qemu in children.split_ascii_whitespace() {
            let killed = Command::new("kill").args(["-9", qemu]).status();
            assert!(killed.is_ok_and(|status| status.success()) || std::thread::panicking());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a file of this many MiB, no two of which are alike.
pub fn bulk(path: &Path, mebibytes: u32) {
    let mut file = std::io::BufWriter::new(File::create(path).unwrap());
    (0..mebibytes << 18).for_each(|word| file.write_all(&word.wrapping_mul(2_654_435_761).to_le_bytes()).unwrap());
}

/// Writes a file with this many rows to train on.
pub fn examples(path: &Path, rows: u32) {
    let mut file = std::io::BufWriter::new(File::create(path).unwrap());
    for row in 0..rows {
        writeln!(file, "{{\"prompt\": \"What is {row} plus {row}?\", \"completion\": \"It is {}.\"}}", row * 2)
            .unwrap();
    }
}
