//! The make-up of a virtual machine, as QEMU's command line. Paths are relative to the machine's
//! directory, so that no name from outside stands on it.

use crate::boot::{
    firmware::Firmware,
    qemu::{Accelerator, Attach, GUEST_PORT, Options},
};
use gap_handover::site::FW_CFG_NAME;
use serde_json::json;

/// QEMU's command line for a machine without disk and network, switched off.
pub(crate) fn machine_arguments(accelerator: Accelerator, cpus: u32, memory: u32, firmware: &Firmware) -> Vec<String> {
    let (accelerator, processor) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Tcg => ("tcg,thread=multi", "max"),
    };
    let mut arguments: Vec<String> = ["-nodefaults", "-no-user-config", "-no-reboot", "-S"].map(Into::into).into();
    let mut add = |name: &str, value: String| arguments.extend([format!("-{name}"), value]);
    add("name", "gapimage".into());
    add("machine", "q35,pflash0=firmware,pflash1=variables".into());
    add("accel", accelerator.into());
    add("cpu", processor.into());
    add("smp", cpus.to_string());
    add("m", memory.to_string());
    add("display", "none".into());
    add("device", "VGA".into());
    // The console goes to standard error, where QEMU's own complaints go as well; standard input and
    // output carry the control protocol.
    add("chardev", "file,id=console,path=/dev/fd/2".into());
    add("serial", "chardev:console".into());
    add("qmp", "stdio".into());
    add("blockdev", block_device("firmware", &firmware.code.to_string_lossy(), true));
    add("blockdev", block_device("variables", "variables", false));
    arguments
}

/// QEMU's command line for what `options` attach to a machine.
pub(crate) fn device_arguments(options: &Options) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut add = |name: &str, value: String| arguments.extend([format!("-{name}"), value]);
    let blocks = format!("logical_block_size={0},physical_block_size={0}", options.block_size);
    let disk = format!("drive=medium,bootindex=0,{blocks}");
    if options.attach == Attach::Ahci {
        // Such a disk is never read-only: what is written to it goes to a file of its own, and away with the machine.
        add("drive", "id=medium,if=none,format=raw,snapshot=on,file=medium".into());
    } else {
        add("blockdev", block_device("medium", "medium", true));
    }
    let device = match options.attach {
        Attach::Virtio => format!("virtio-blk-pci,{disk}"),
        Attach::Nvme => format!("nvme,serial=gapimage,{disk}"),
        Attach::Ahci => format!("ide-hd,bus=ide.0,{disk}"),
        Attach::Usb => {
            // The usual `usb-storage` takes a block size and has blocks of 512 bytes all the same.
            add("device", "qemu-xhci".into());
            add("device", "usb-bot,id=stick".into());
            format!("scsi-hd,bus=stick.0,scsi-id=0,lun=0,{disk}")
        }
    };
    add("device", device);
    if options.data.is_some() {
        add("blockdev", block_device("data", "data", false));
        add("device", "virtio-blk-pci,drive=data,serial=gapdata".into());
    }
    if options.site.is_some() {
        add("fw_cfg", format!("name={FW_CFG_NAME},file=site"));
    }
    match options.port {
        Some(port) => {
            add("netdev", format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:{GUEST_PORT}"));
            // Without its boot ROM, which would look for a network to boot from.
            add("device", "virtio-net-pci,netdev=net,romfile=".into());
        }
        None => add("nic", "none".into()),
    }
    arguments
}

/// One block device for QEMU: a file of that name.
fn block_device(name: &str, path: &str, read_only: bool) -> String {
    let file = json!({ "driver": "file", "filename": path });
    json!({ "driver": "raw", "node-name": name, "read-only": read_only, "file": file }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn options(text: &str) -> Options {
        let directory = Path::new("/nonexistent");
        Options { site: Some(text.into()), port: Some(0), ..Options::new(directory.join("a,b.gap"), Accelerator::Tcg) }
    }

    #[test]
    fn the_artifact_is_read_only_and_the_guest_reaches_nobody() {
        let line = device_arguments(&options("")).join(" ");
        assert!(line.contains(r#""node-name":"medium","read-only":true"#), "{line}");
        assert!(line.contains("restrict=on,hostfwd=tcp:127.0.0.1:0-:8443"), "{line}");
        assert!(!line.contains("a,b.gap"), "names from outside are not on the command line: {line}");
    }

    #[test]
    fn what_is_written_goes_to_the_data_disk_and_nowhere_else() {
        let line = device_arguments(&Options { data: Some("c,d.img".into()), ..options("") }).join(" ");
        assert!(line.contains(r#""node-name":"data","read-only":false"#), "{line}");
        assert_eq!(line.matches(r#""read-only":false"#).count(), 1, "{line}");
        assert!(!line.contains("c,d.img"), "{line}");
    }

    #[test]
    fn without_a_port_there_is_no_network() {
        let line = device_arguments(&Options { port: None, ..options("") }).join(" ");
        assert!(line.ends_with("-nic none") && !line.contains("netdev"), "{line}");
    }
}
