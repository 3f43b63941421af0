//! PID 1 of the appliance: from the kernel's first user process to a running agent in a verified OS image.
//!
//! It is a static program in the initramfs and stays in its memory: a pulled medium cannot take it away. There is no
//! shell and no fallback. `main.rs` tells the boot in order; each module here is one concern and takes the directory that
//! stands for `/`, so that a made-up tree can stand in for a machine.
//!
//! # What it leaves to the OS image
//! The image's root is read-only. `/run`, `/tmp` and `/var` are empty tmpfs (`/var` gets its usual directories, so what
//! the image carries under `/var` is not seen at run time); `/dev`, `/dev/pts`, `/dev/shm`, `/proc`, `/sys` and
//! `/sys/fs/cgroup` (version 2) are mounted. `/run/gap` (mode 0700) holds `boot.json`, `trust.toml` and, where the
//! machine was given one that parses, `site.toml`; a file `drivers` comes there once every device that was found has its driver. `/usr/bin/gapd`
//! runs there with an empty standard input; its output goes, line by line and escaped, to every console. `kernel.pid_max` and `kernel.threads-max` are 4194304.
//!
//! # What the agent asks of it
//! By a signal to PID 1: `SIGUSR1`, `SIGUSR2` or `SIGPWR` power the machine off, `SIGTERM` or `SIGINT` (which is
//! Ctrl-Alt-Del too) restart it. An agent that ends is started again after 1 s, 2 s, … 30 s;
//! one that ends with status [`EXIT_NOT_TRUSTED`](gap_handover::control::EXIT_NOT_TRUSTED) is not: the machine halts.
//!
//! # What it needs in the initramfs
//! `/gap/trust.toml`, `/gap/build-time`, `/gap/modules` (see [`modules`]) and the empty directories
//! `/dev`, `/proc`, `/sys`, `/run`, `/sysroot` and `/medium`. Without `button` and `evdev` it does not see the power
//! button, without `qemu_fw_cfg` or `vfat` no site configuration, without `efivarfs` no state of Secure Boot.
//!
//! # The site configuration
//! QEMU's firmware configuration comes before a FAT volume labelled `GAPSITE`. The boot waits for that volume only while
//! the USB shows a stick that is no disk yet; on a machine with USB it is looked for during 15 s more while the agent runs,
//! and where it comes, the agent is ended and started again with it. A configuration that does not parse is announced as ignored and
//! not handed on: nothing in it can be relied on, so the agent starts with its defaults (no network, a token made at
//! boot).
//!
//! # What it prints
//! Lines that begin with `gap-init: `. Two of them are read by programs: `gap-init: not trusted: REASON` and
//! `gap-init: failed: REASON`. After either it waits for the power button and does nothing else.

pub mod agent;
pub mod block;
pub mod clock;
pub mod cmdline;
pub mod console;
pub mod events;
pub mod fat;
pub mod handover;
pub mod kernel;
pub mod loop_device;
pub mod medium;
pub mod modules;
pub mod mounts;
pub mod power_button;
pub mod probe;
pub mod processes;
pub mod release;
pub mod secure_boot;
pub mod shutdown;
pub mod site;
pub mod stop;
pub mod story;
pub mod supervise;
pub mod sysroot;
pub mod usb;

pub use stop::{Attempt, Stop};
