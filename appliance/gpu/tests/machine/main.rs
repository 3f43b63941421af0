//! Whole machines, made up, from the bus to the specification.
//!
//! None of them was captured from a real one: each follows the driver's documentation (its README, chapters "proc
//! file system interface" and "MIG"; Linux' ABI/testing/sysfs-bus-pci) and is said to do so at its maker.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod library;
mod tree;

use gap_gpu::{
    fabric::Fabric,
    health::{Reading, Verdict},
    mig::Wanted,
    provision::{Mode, Provisioned, provision},
};
use library::{Fake, slice};
use tree::Tree;

fn run(tree: &Tree, fake: &mut Fake) -> Provisioned {
    provision(&tree.root(), fake, None)
}

/// Making device nodes takes root; without it the tests look at everything else.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_machine_without_gpus_works_on_its_cpus_and_loads_nothing() {
    let tree = Tree::new().other("0000:00:1f.0", "0x8086", "0x060100");
    let mut fake = Fake::default();
    let outcome = run(&tree, &mut fake);
    assert_eq!(outcome.mode, Mode::Cpu);
    assert!(outcome.problems.is_empty() && fake.modules.is_empty() && fake.ran.is_empty());
    assert!(!tree.exists("/run/cdi"));
}

#[test]
fn one_gpu_gets_nodes_links_and_a_specification() {
    let tree = Tree::new().h200("0000:3b:00.0", 0).driver();
    let mut fake = Fake::default().sees(&["0000:3b:00.0"]);
    let outcome = run(&tree, &mut fake);
    assert_eq!(fake.modules, ["nvidia", "nvidia_modeset", "nvidia_uvm"]);
    if !is_root() {
        return;
    }
    assert_eq!(outcome.problems, Vec::<String>::new());
    assert_eq!((outcome.mode, outcome.driver.as_deref()), (Mode::Gpu, Some("550.163.01")));
    assert_eq!(outcome.devices, ["0", "GPU-00000000-0000-0000-0000-00000000003b", "all"]);
    assert_eq!(tree.device("/dev/nvidia0"), Some((195, 0)));
    assert_eq!(tree.device("/dev/nvidiactl"), Some((195, 255)));
    assert_eq!(tree.device("/dev/nvidia-uvm-tools"), Some((234, 1)));
    assert_eq!(tree.link("/dev/char/195:0").as_deref(), Some("../nvidia0"));
    let spec = tree.spec();
    assert_eq!(spec["cdiVersion"], "0.6.0");
    assert_eq!(spec["devices"][0]["containerEdits"]["deviceNodes"][0]["path"], "/dev/nvidia0");
    let mounts = spec["containerEdits"]["mounts"].as_array().unwrap();
    let mounted: Vec<&str> = mounts.iter().map(|mount| mount["hostPath"].as_str().unwrap()).collect();
    assert_eq!(mounted, ["/usr/lib/x86_64-linux-gnu/libcuda.so.1", "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"]);
}

#[test]
fn doing_it_again_changes_nothing() {
    let tree = Tree::new().h200("0000:3b:00.0", 0).driver();
    let first = run(&tree, &mut Fake::default().sees(&["0000:3b:00.0"]));
    assert_eq!(run(&tree, &mut Fake::default().sees(&["0000:3b:00.0"])), first);
}

#[test]
fn eight_gpus_behind_switches_start_the_fabric_manager_before_the_library_is_asked() {
    let addresses = ["0000:1b:00.0", "0000:43:00.0", "0000:52:00.0", "0000:61:00.0"];
    let more = ["0000:9d:00.0", "0000:c3:00.0", "0000:d1:00.0", "0000:df:00.0"];
    let all: Vec<&str> = addresses.into_iter().chain(more).collect();
    let tree = all.iter().zip(0..).fold(Tree::new(), |tree, (address, minor)| tree.h100(address, minor));
    let tree = (3..7).fold(tree, |tree, bus| tree.switch(&format!("0000:0{bus}:00.0"))).driver().fabric_manager();
    let mut fake = Fake::default().sees(&all);
    let outcome = run(&tree, &mut fake);
    assert!(matches!(outcome.fabric, Fabric::Needed { .. }));
    assert_eq!(fake.ran, ["/usr/bin/nv-fabricmanager -c /usr/share/nvidia/nvswitch/fabricmanager.cfg"]);
    assert_eq!(fake.order, ["run", "library"]);
    // 30 seconds, and 15 for each GPU.
    assert_eq!(fake.limits[0].as_secs(), 150);
    assert_eq!(outcome.gpus.len(), 8);
    if is_root() {
        assert_eq!(tree.device("/dev/nvidia-nvswitch3"), Some((235, 3)));
        assert_eq!(outcome.devices.len(), 17);
    }
}

#[test]
fn switches_without_a_fabric_manager_are_told() {
    let tree = Tree::new().h100("0000:1b:00.0", 0).switch("0000:03:00.0").driver();
    let outcome = run(&tree, &mut Fake::default().sees(&["0000:1b:00.0"]));
    assert!(outcome.problems.iter().any(|problem| problem.contains("nvidia-fabricmanager")), "{outcome:?}");
}

#[test]
fn a_sliced_gpu_offers_its_slices_with_the_rights_to_them() {
    let tree = Tree::new().a100("0000:07:00.0", 0).driver().slices(0, &[(7, 0, 66, 67), (8, 0, 75, 76)]);
    let cut = [slice("MIG-a", (7, 0), "1g.10gb"), slice("MIG-b", (8, 0), "1g.10gb")];
    let mut fake = Fake::default().sees(&["0000:07:00.0"]).cut(0, &cut);
    let outcome = run(&tree, &mut fake);
    assert_eq!(outcome.gpus[0].slices, ["1g.10gb", "1g.10gb"]);
    if !is_root() {
        return;
    }
    assert_eq!(outcome.devices, ["0:0", "MIG-a", "0:1", "MIG-b", "all"]);
    let spec = tree.spec();
    let nodes = spec["devices"][0]["containerEdits"]["deviceNodes"].as_array().unwrap();
    let paths: Vec<&str> = nodes.iter().map(|node| node["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap66", "/dev/nvidia-caps/nvidia-cap67"]);
    assert_eq!(tree.device("/dev/nvidia-caps/nvidia-cap66"), Some((237, 66)));
    assert_eq!(tree.device("/dev/nvidia-caps/nvidia-cap9"), None, "a slice that is not there has no node");
}

#[test]
fn a_wanted_cut_is_made_before_anything_uses_the_gpu() {
    let configuration = "version: v1\nmig-configs:\n  two:\n    - devices: all\n      mig-enabled: true\n      \
        mig-devices: {\"3g.40gb\": 2}\n";
    let wanted = Wanted::parse(configuration, "two").unwrap();
    let tree = Tree::new().a100("0000:07:00.0", 0).driver();
    let mut fake = Fake::default().sees(&["0000:07:00.0"]).cut(0, &[]);
    provision(&tree.root(), &mut fake, Some(&wanted));
    assert_eq!(fake.ran, ["nvidia-smi -i 0 -mig 1", "nvidia-smi mig -i 0 -cgi 3g.40gb,3g.40gb -C"]);
}

#[test]
fn a_gpu_that_fell_off_the_bus_fails_alone() {
    let tree = Tree::new().h100("0000:1b:00.0", 0).h100("0000:43:00.0", 1).driver();
    let log = "<3>NVRM: Xid (PCI:0000:43:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n";
    let mut fake = Fake::default().sees(&["0000:1b:00.0"]).logs(log);
    let outcome = run(&tree, &mut fake);
    let verdicts: Vec<Verdict> = outcome.gpus.iter().map(|gpu| gpu.health.verdict).collect();
    assert_eq!(verdicts, [Verdict::Healthy, Verdict::Failed]);
    assert!(outcome.problems.contains(&"2 GPUs are plugged in and the driver's library sees 1".to_owned()));
    if is_root() {
        assert_eq!(outcome.devices, ["0", "GPU-00000000-0000-0000-0000-00000000001b", "all"]);
    }
}

#[test]
fn mixed_gpus_are_judged_each_by_itself() {
    let tree = Tree::new().a100("0000:07:00.0", 0).h200("0000:3b:00.0", 1).driver();
    let hot = Reading { remap_pending: Some(true), ..Reading::default() };
    let mut fake = Fake::default().sees(&["0000:07:00.0", "0000:3b:00.0"]).reads(1, hot);
    let outcome = run(&tree, &mut fake);
    assert_eq!(outcome.gpus[0].health.verdict, Verdict::Healthy);
    assert_eq!(outcome.gpus[1].health.verdict, Verdict::Degraded);
    assert_eq!(outcome.gpus[1].health.reasons, ["rows of its memory wait to be replaced: restart the machine"]);
}

#[test]
fn without_a_driver_the_machine_goes_on_with_its_cpus_and_says_why() {
    let tree = Tree::new().plugged("0000:3b:00.0", "0x2335", "0x030200");
    let mut fake = Fake { refuse_modules: true, ..Fake::default() };
    let outcome = run(&tree, &mut fake);
    assert_eq!(outcome.mode, Mode::Cpu);
    assert_eq!(outcome.problems.len(), 3);
    assert_eq!(outcome.gpus[0].health.verdict, Verdict::Failed);
    assert!(outcome.gpus[0].health.reasons[0].contains("no driver took it"));
}

#[test]
fn without_the_library_gpus_are_not_offered() {
    let tree = Tree::new().h200("0000:3b:00.0", 0).driver();
    let outcome = run(&tree, &mut Fake { no_library: true, ..Fake::default() });
    assert_eq!(outcome.mode, Mode::Cpu);
    assert!(outcome.problems[0].contains("libnvidia-ml1"), "{:?}", outcome.problems);
}
