//! What the stages ask of a machine, answered from a table.

use gap_gpu::{
    health::Reading,
    mig::Present,
    nvml::{Management, ManagementError, Seen, Slice},
    provision::Machine,
};
use std::time::Duration;

#[derive(Default)]
pub struct Fake {
    pub modules: Vec<String>,
    pub ran: Vec<String>,
    pub limits: Vec<Duration>,
    pub order: Vec<&'static str>,
    pub refuse_modules: bool,
    pub no_library: bool,
    pub seen: Vec<Seen>,
    /// What the library shows once a program ran.
    pub after: Option<Vec<Seen>>,
    pub refuse_runs: bool,
    pub log: String,
}

pub fn slice(uuid: &str, instance: (u32, u32), profile: &str) -> Slice {
    Slice { uuid: uuid.into(), instance, profile: profile.into(), memory: None }
}

impl Fake {
    /// The library shows these GPUs.
    pub fn sees(mut self, addresses: &[&str]) -> Self {
        let seen = |address: &&str| Seen {
            address: address.parse().unwrap(),
            uuid: Some(format!("GPU-00000000-0000-0000-0000-0000000000{}", &address[5..7])),
            model: None,
            memory: Some(80 << 30),
            mig: None,
            slices: Vec::new(),
            reading: Reading::default(),
        };
        self.seen = addresses.iter().map(seen).collect();
        self
    }

    /// One of them can be cut, and is cut so.
    pub fn cut(mut self, index: usize, slices: &[Slice]) -> Self {
        let mut present = Present { enabled: !slices.is_empty(), slices: Default::default() };
        for slice in slices {
            *present.slices.entry(slice.profile.clone()).or_default() += 1;
        }
        self.seen[index].mig = Some(present);
        self.seen[index].slices = slices.to_vec();
        self
    }

    /// One of them is in MIG mode, and nothing is there to compute on.
    pub fn cut_into_nothing(self, index: usize) -> Self {
        let mut fake = self.cut(index, &[]);
        fake.seen[index].mig = Some(Present { enabled: true, slices: Default::default() });
        fake
    }

    /// What the library shows once a program ran is what `other` shows.
    pub fn then(self, other: Self) -> Self {
        Self { after: Some(other.seen), ..self }
    }

    pub fn reads(mut self, index: usize, reading: Reading) -> Self {
        self.seen[index].reading = reading;
        self
    }

    pub fn logs(mut self, log: &str) -> Self {
        self.log = log.into();
        self
    }
}

impl Machine for Fake {
    fn load_module(&mut self, name: &str) -> Result<(), String> {
        self.modules.push(name.to_owned());
        if self.refuse_modules { Err("Required key not available".into()) } else { Ok(()) }
    }

    fn run(&mut self, command: &[String], limit: Duration) -> Result<(), String> {
        self.order.push("run");
        self.ran.push(command.join(" "));
        self.limits.push(limit);
        if self.refuse_runs {
            return Err("exit status: 4".into());
        }
        self.seen = self.after.take().unwrap_or_else(|| self.seen.clone());
        Ok(())
    }

    fn management(&mut self) -> Result<Box<dyn Management>, ManagementError> {
        self.order.push("library");
        if self.no_library {
            return Err(ManagementError::new("start", "add libnvidia-ml1"));
        }
        Ok(Box::new(Table(self.seen.clone())))
    }

    fn kernel_log(&mut self) -> String {
        self.log.clone()
    }
}

struct Table(Vec<Seen>);

impl Management for Table {
    fn gpus(&self) -> Result<Vec<Seen>, ManagementError> {
        Ok(self.0.clone())
    }

    fn persist(&self) -> Result<(), ManagementError> {
        Ok(())
    }
}
