//! Programs of the OS image that provisioning runs: each has its time, and one that cannot be ended is left behind.

use std::{
    io,
    process::{Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// How often a program is looked after.
const POLL: Duration = Duration::from_millis(100);
/// How long a program that was ended by force may take to be gone. One that waits for a driver that hangs never is.
const GONE: Duration = Duration::from_secs(5);

/// Runs a program until it ends, at most so long.
///
/// # Errors
/// A sentence with what the program or the system said.
pub fn run(command: &[String], limit: Duration) -> Result<(), String> {
    let (program, arguments) = command.split_first().ok_or("no program is named")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let seconds = limit.as_secs();
    match ended(limit, || child.try_wait()).map_err(|error| error.to_string())? {
        Some(status) if status.success() => return Ok(()),
        Some(status) => return Err(status.to_string()),
        None => drop(child.kill()),
    }
    match ended(GONE, || child.try_wait()) {
        Ok(None) => Err(format!(
            "it was not done after {seconds} seconds and cannot be ended: the driver hangs, restart the machine"
        )),
        _ => Err(format!("it was not done after {seconds} seconds, and was ended")),
    }
}

/// Looks until it has ended, at most so long; `None` when it has not.
fn ended(limit: Duration, mut look: impl FnMut() -> io::Result<Option<ExitStatus>>) -> io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    loop {
        match look()? {
            None if begun.elapsed() < limit => sleep(POLL),
            status => return Ok(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<(), String> {
        run(&["sh", "-c", script].map(str::to_owned), limit)
    }

    #[test]
    fn a_program_has_its_time_and_is_then_ended() {
        let long = Duration::from_secs(60);
        assert_eq!(shell("exit 0", long), Ok(()));
        assert_eq!(shell("exit 4", long), Err("exit status: 4".into()));
        let begun = Instant::now();
        let told = shell("exec sleep 600", Duration::ZERO).unwrap_err();
        assert_eq!(told, "it was not done after 0 seconds, and was ended");
        assert!(begun.elapsed() < long);
    }

    #[test]
    fn one_that_never_ends_is_not_waited_for() {
        assert!(ended(Duration::from_millis(300), || Ok(None)).unwrap().is_none());
    }
}
