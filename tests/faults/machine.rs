//! A virtual machine that is switched on, cut from its power and switched on again, with its data disk.

use crate::{client::Api, fixture};
use gap_format::Digest;
use gapctl::client::Fingerprint;
use serde_json::Value;
use std::{
    ffi::OsString,
    fs::{self, File},
    io::Write,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Longest that a machine may take to become ready; emulation on busy processors is slow.
const READY: Duration = Duration::from_secs(300);
/// Time between two looks whether a machine that starts still runs.
const LOOK: Duration = Duration::from_secs(5);
/// How often a machine is started whose kernel does not come up.
const STARTS: u32 = 4;
/// Longest that a training job may take.
const TRAINING: Duration = Duration::from_secs(900);
/// Memory of a job that needs next to none, so that others find room beside it.
pub const LITTLE: u64 = 64 << 20;
/// Steps of a training job that is disturbed.
pub const STEPS: u64 = 240;
/// The program that a machine runs in.
const QEMU: &str = "qemu-system-x86_64";

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
    pub client: Api,
    certificate: Fingerprint,
    token: String,
    /// The certificate as OpenSSL reads it.
    pem: String,
}

impl Site {
    /// A site with an empty disk of this many MiB.
    pub fn new(disk: u64) -> Self {
        let directory = TempDir::new().unwrap();
        let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let token = fixture::letters(40);
        let (chain, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        let hash = Digest::of(token.as_bytes()).to_hex();
        let site = format!(
            "[network]\nmode = \"static\"\naddress = \"10.0.2.15\"\nprefix = 24\n[api]\ntoken_sha256 = \"{hash}\"\n\
             [data]\ndisk = \"gapdata\"\n[endpoints]\ntracking = \"10.0.2.99:5000\"\n[tls]\ncertificate = '''\n{chain}'''\nkey = '''\n{key}'''\n"
        );
        fs::write(directory.path().join("site.toml"), site).unwrap();
        File::create(directory.path().join("data.img")).unwrap().set_len(disk << 20).unwrap();
        // Free now; nobody else here takes ports of this range by chance.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let certificate = Fingerprint::of(pair.cert.der());
        let client = Api::new(&server(port), certificate, &token, directory.path().join("uploads"));
        Self { directory, port, client, certificate, token, pem: chain }
    }

    /// A client with a wrong token.
    pub fn stranger(&self) -> Api {
        self.with_token(&fixture::letters(39))
    }

    /// A client with this token.
    pub fn with_token(&self, token: &str) -> Api {
        Api::new(&server(self.port), self.certificate, token, self.file("uploads"))
    }

    /// The command `gapctl`, for an admin of this site. It is another package's, and built before.
    pub fn gapctl(&self) -> Command {
        let mut gapctl = Command::new(Path::new(env!("CARGO_BIN_EXE_gapimage")).with_file_name("gapctl"));
        gapctl.args(["--server", &server(self.port), "--fingerprint", &self.certificate.to_string()]);
        gapctl.env("GAPCTL_TOKEN", &self.token).env("XDG_CONFIG_HOME", self.file("config"));
        gapctl
    }

    /// A terminal of a job: bytes in, bytes out, through OpenSSL's client, which knows nothing of HTTP.
    pub fn terminal(&self, job: &str) -> Child {
        fs::write(self.file("site.pem"), &self.pem).unwrap();
        let mut client = Command::new("openssl");
        client.args(["s_client", "-quiet", "-verify_return_error", "-CAfile"]).arg(self.file("site.pem"));
        client.args(["-connect", &format!("127.0.0.1:{}", self.port)]);
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut client = client.spawn().unwrap();
        let request = format!(
            "GET /v1/appliance/jobs/{job}/terminal HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Connection: upgrade\r\nUpgrade: gap-terminal\r\n\r\n",
            self.token
        );
        client.stdin.as_mut().unwrap().write_all(request.as_bytes()).unwrap();
        client
    }

    /// A file of this site.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Switches the machine on and waits until it takes jobs.
    pub fn switch_on(&self) -> Machine {
        self.switch_on_with(artifact(), None)
    }

    /// Switches the machine on with this medium, and with a clock that shows this time. Emulation on busy processors at times
    /// trips over the kernel's own changes of its code, long before anything of the appliance runs; then once more.
    pub fn switch_on_with(&self, medium: &Path, clock: Option<&str>) -> Machine {
        for _ in 1..STARTS {
            let before = self.console().len();
            let machine = self.start(medium, clock);
            match self.wait_until_ready(machine) {
                Ok(machine) => return machine,
                Err(error) => {
                    let console = self.console();
                    let said = console.get(before..).unwrap_or_default();
                    let is_emulation = said.contains("Kernel panic") && !said.contains("gap-init:");
                    assert!(is_emulation, "{error}\n{said}");
                }
            }
        }
        panic!("the kernel does not start\n{}", self.console());
    }

    fn start(&self, medium: &Path, clock: Option<&str>) -> Machine {
        let mut boot = fixture::gapimage();
        if let Some(time) = clock {
            boot.env("PATH", self.qemu_at(time));
        }
        boot.arg("boot").arg(medium).arg("--port").arg(self.port.to_string());
        boot.arg("--data").arg(self.file("data.img")).arg("--site").arg(self.file("site.toml"));
        let output = File::options().create(true).append(true).open(self.file("console")).unwrap();
        boot.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        Machine { child: boot.spawn().unwrap() }
    }

    fn wait_until_ready(&self, mut machine: Machine) -> Result<Machine, String> {
        let until = Instant::now() + READY;
        loop {
            match self.client.wait_until_ready(LOOK) {
                Ok(_) => return Ok(machine),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => {}
            }
            if let Some(status) = machine.child.try_wait().unwrap() {
                return Err(format!("the machine ended: {status}"));
            }
        }
    }

    /// A search path on which QEMU is one whose machines begin at this time.
    fn qemu_at(&self, time: &str) -> OsString {
        let path = std::env::var_os("PATH").unwrap();
        let is_there = |directory: &PathBuf| directory.join(QEMU).is_file();
        let real = std::env::split_paths(&path).find(is_there).unwrap().join(QEMU);
        let directory = self.file("bin");
        fs::create_dir_all(&directory).unwrap();
        let script = format!("#!/bin/sh\nexec {} \"$@\" -rtc base={time}\n", real.display());
        fs::write(directory.join(QEMU), script).unwrap();
        fs::set_permissions(directory.join(QEMU), fs::Permissions::from_mode(0o755)).unwrap();
        std::env::join_paths(std::iter::once(directory).chain(std::env::split_paths(&path))).unwrap()
    }

    /// All that the machine said on its console, in all of its starts.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.file("console")).unwrap_or_default()).into_owned()
    }

    /// Runs a declared job, with these fields besides. Gives its name.
    #[track_caller]
    pub fn run(&self, job: &str, more: Value) -> String {
        let mut body = serde_json::json!({"kind": "run", "job": job});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.client.post("/v1/appliance/jobs", &body).unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// Trains the model on a file for this many steps, with a checkpoint after every fifth. Gives the job's name.
    #[track_caller]
    pub fn train(&self, file: &str, steps: u64) -> String {
        let parameters = serde_json::json!({"max_steps": steps, "save_steps": 5, "save_total_limit": 2});
        let body = serde_json::json!({
            "model": "tiny", "training_file": file, "seed": 7, "appliance": {"parameters": parameters},
        });
        self.client.post("/v1/fine_tuning/jobs", &body).unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// The steps that a training job has noted, in order.
    pub fn steps(&self, job: &str) -> Vec<u64> {
        let Ok(text) = self.client.bytes(&format!("/v1/appliance/jobs/{job}/metrics")) else { return Vec::new() };
        let rows = text.split(|&byte| byte == b'\n').filter_map(|row| serde_json::from_slice::<Value>(row).ok());
        rows.filter_map(|row| row["step"].as_u64()).collect()
    }

    /// Waits until a training job has done this many steps.
    #[track_caller]
    pub fn wait_until_step(&self, job: &str, step: u64) {
        let until = Instant::now() + Duration::from_secs(180);
        while self.steps(job).last().is_none_or(|last| *last < step) {
            assert!(Instant::now() < until, "it never got to step {step}\n{}", self.log(job));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What comes of training on a file for [`STEPS`] steps when nothing disturbs it.
    #[track_caller]
    pub fn trained_undisturbed(&self, file: &str) -> Value {
        let undisturbed = self.train(file, STEPS);
        let ended = self.wait_within(TRAINING, &undisturbed, OVER);
        assert_eq!((&ended["state"], &ended["starts"]), (&"succeeded".into(), &1.into()), "{ended}");
        self.result(&undisturbed)
    }

    /// A training job of [`STEPS`] steps that was disturbed ends well, each step was done once and in order, and what came of
    /// it is what comes of an undisturbed one.
    #[track_caller]
    pub fn trained_as_if_nothing_had_been(&self, disturbed: &str, undisturbed: &Value) {
        let ended = self.wait_within(TRAINING, disturbed, OVER);
        assert_eq!(ended["state"], "succeeded", "{ended}\n{}", self.log(disturbed));
        assert!(ended["starts"].as_u64().unwrap() > 1, "it was never disturbed: {ended}");
        assert_eq!(self.steps(disturbed), (1..=STEPS).collect::<Vec<_>>());
        assert_eq!(self.result(disturbed), *undisturbed);
    }

    /// No record of the audit log is missing between its first and its last, and none was changed.
    #[track_caller]
    pub fn audit_is_whole(&self) {
        let audit = self.client.get("/v1/appliance/audit?limit=1000").unwrap();
        let records = audit["data"].as_array().unwrap();
        let numbers: Vec<u64> = records.iter().map(|record| record["number"].as_u64().unwrap()).collect();
        assert_eq!(
            numbers,
            (1..=records.len() as u64).collect::<Vec<_>>(),
            "records are in the order of what was done"
        );
        let follows = |pair: &[Value]| pair[1]["previous"] == pair[0]["hash"];
        assert!(!records.is_empty() && records.windows(2).all(follows), "{audit}");
    }

    /// What a training job left, by name and digest.
    #[track_caller]
    fn result(&self, job: &str) -> Value {
        let lineage = self.client.get(&format!("/v1/appliance/jobs/{job}/outputs/lineage.json")).unwrap();
        assert!(lineage["result"].as_object().is_some_and(|result| !result.is_empty()), "{lineage}");
        lineage["result"].clone()
    }

    /// Waits until an uploaded file was found good.
    #[track_caller]
    pub fn wait_until_good(&self, file: &str) {
        let good = |file: &Value| (file["status"] == "processed").then_some(());
        self.client.wait_for(&format!("/v1/files/{file}"), Duration::from_secs(60), good).unwrap();
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
        let found = self.client.wait_for(&path, limit, wanted);
        found.unwrap_or_else(|error| panic!("{error}: {:?}\n{}", self.client.get(&path), self.log(job)))
    }

    /// What a job printed.
    #[track_caller]
    pub fn log(&self, job: &str) -> String {
        let page = self.client.get(&format!("/v1/appliance/jobs/{job}/log?after=0"));
        let page = page.unwrap_or_else(|error| panic!("{error}; the machine said:\n{}", self.console()));
        let lines = page["lines"].as_array().unwrap().iter();
        lines.map(|line| format!("{}\n", line["text"].as_str().unwrap())).collect()
    }

    /// Waits until a job has printed this.
    #[track_caller]
    pub fn wait_until_said(&self, job: &str, text: &str) {
        let until = Instant::now() + Duration::from_secs(120);
        while !self.log(job).contains(text) {
            assert!(Instant::now() < until, "it never said {text}: {}", self.log(job));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// A job that runs after all that happened: the appliance works.
    #[track_caller]
    pub fn still_works(&self) {
        let job = self.run("nothing", serde_json::json!({}));
        let ended = self.wait(&job, OVER);
        assert_eq!(ended["state"], "succeeded", "{ended}\n{}", self.log(&job));
    }
}

fn server(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
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

/// Writes a file of this many MiB, no two of which are alike, nor are those of files with other numbers.
pub fn bulk(path: &Path, mebibytes: u32, number: u32) {
    let mut file = std::io::BufWriter::new(File::create(path).unwrap());
    let word = |index: u32| (index.wrapping_mul(2_654_435_761) ^ number).to_le_bytes();
    (0..mebibytes << 18).for_each(|index| file.write_all(&word(index)).unwrap());
}

/// Writes a file with this many rows to train on.
pub fn examples(path: &Path, rows: u32) {
    let mut file = std::io::BufWriter::new(File::create(path).unwrap());
    for row in 0..rows {
        writeln!(file, "{{\"prompt\": \"What is {row} plus {row}?\", \"completion\": \"It is {}.\"}}", row * 2)
            .unwrap();
    }
}
