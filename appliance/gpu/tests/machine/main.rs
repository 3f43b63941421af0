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
    provision::{Mode, Provisioned, deadline, given_up, provision},
};
use gap_handover::{SiteConfig, site::Cut};
use library::{Fake, slice};
use tree::Tree;

fn run(tree: &Tree, fake: &mut Fake) -> Provisioned {
    provision(&tree.root(), fake, &[])
}

/// `gpus.mig` of a site configuration.
fn cuts(text: &str) -> Vec<Cut> {
    SiteConfig::parse(text).unwrap().gpus.mig
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
fn a_fabric_manager_that_outlived_the_agent_is_not_started_twice() {
    let tree = Tree::new().h100("0000:1b:00.0", 0).switch("0000:03:00.0").driver().fabric_manager();
    let mut fake = Fake::default().sees(&["0000:1b:00.0"]);
    run(&tree.runs("/usr/share/nvidia/nvswitch/fabricmanager.cfg"), &mut fake);
    assert_eq!(fake.ran.len(), 1, "what runs is another program");

    let tree = Tree::new().h100("0000:1b:00.0", 0).switch("0000:03:00.0").driver().fabric_manager();
    let mut fake = Fake::default().sees(&["0000:1b:00.0"]);
    let outcome = run(&tree.runs("/usr/bin/nv-fabricmanager"), &mut fake);
    assert!(fake.ran.is_empty() && matches!(outcome.fabric, Fabric::Needed { .. }), "{outcome:?}");
}

#[test]
fn switches_without_a_fabric_manager_are_told() {
    let tree = Tree::new().h100("0000:1b:00.0", 0).switch("0000:03:00.0").driver();
    let outcome = run(&tree, &mut Fake::default().sees(&["0000:1b:00.0"]));
    assert!(outcome.problems.iter().any(|problem| problem.contains("nvidia-fabricmanager")), "{outcome:?}");
}

#[test]
fn a_sliced_gpu_offers_its_slices_with_the_rights_to_them() {
    let tree = Tree::new().a100("0000:07:00.0", 0).driver().slices(0, &[(7, 0), (8, 0)]);
    let cut = [slice("MIG-a", (7, 0), "1g.10gb"), slice("MIG-b", (8, 0), "1g.10gb")];
    let mut fake = Fake::default().sees(&["0000:07:00.0"]).cut(0, &cut);
    let outcome = run(&tree, &mut fake);
    assert_eq!(outcome.gpus[0].slices, ["1g.10gb", "1g.10gb"]);
    if !is_root() {
        return;
    }
    assert_eq!(outcome.problems, Vec::<String>::new());
    assert_eq!(outcome.devices, ["0:0", "MIG-a", "0:1", "MIG-b", "all"]);
    let spec = tree.spec();
    let nodes = spec["devices"][0]["containerEdits"]["deviceNodes"].as_array().unwrap();
    let paths: Vec<&str> = nodes.iter().map(|node| node["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap66", "/dev/nvidia-caps/nvidia-cap67"]);
    assert_eq!(tree.device("/dev/nvidia-caps/nvidia-cap66"), Some((237, 66)));
    assert_eq!(tree.device("/dev/nvidia-caps/nvidia-cap9"), None, "a slice that is not there has no node");
}

#[test]
fn rights_that_cannot_be_read_are_told_once_and_their_slices_are_not_offered() {
    let tree = Tree::new().a100("0000:07:00.0", 0).driver().slices(0, &[(7, 0)]).endless_minors();
    let mut fake = Fake::default().sees(&["0000:07:00.0"]).cut(0, &[slice("MIG-a", (7, 0), "1g.10gb")]);
    let outcome = run(&tree, &mut fake);
    let told = |words: &str| outcome.problems.iter().filter(|problem| problem.contains(words)).count();
    assert_eq!(told("/proc/driver/nvidia-caps/mig-minors: it is longer than"), 1, "{:?}", outcome.problems);
    assert_eq!(told("the slice MIG-a (1g.10gb) of the GPU 0000:07:00.0: no job gets it"), 1, "{:?}", outcome.problems);
    assert!(outcome.slots.is_empty() && outcome.mode == Mode::Cpu);
}

#[test]
fn a_gpu_in_mig_mode_without_slices_is_not_offered_as_a_whole() {
    let tree = Tree::new().a100("0000:07:00.0", 0).h200("0000:3b:00.0", 1).driver();
    let mut fake = Fake::default().sees(&["0000:07:00.0", "0000:3b:00.0"]).cut_into_nothing(0);
    let outcome = run(&tree, &mut fake);
    let told =
        outcome.problems.iter().any(|problem| problem.contains("GPU 0000:07:00.0 is in MIG mode and has no slices"));
    assert!(told, "{:?}", outcome.problems);
    if is_root() {
        assert_eq!(outcome.devices, ["0", "GPU-00000000-0000-0000-0000-00000000003b", "all"]);
        assert_eq!(outcome.slots.iter().map(|slot| slot.gpu.to_string()).collect::<Vec<_>>(), ["0000:3b:00.0"]);
    }
}

const HALVES: &str = "[[gpus.mig]]\ndevices = 'all'\nmig-enabled = true\nmig-devices = { '3g.40gb' = 2 }";

#[test]
fn a_wanted_cut_is_made_while_nothing_uses_the_gpu() {
    let tree = Tree::new().a100("0000:07:00.0", 0).driver().slices(0, &[(1, 0), (2, 0)]);
    let halves = [slice("MIG-a", (1, 0), "3g.40gb"), slice("MIG-b", (2, 0), "3g.40gb")];
    let sees = || Fake::default().sees(&["0000:07:00.0"]);
    let mut fake = sees().cut(0, &[]).then(sees().cut(0, &halves));
    let outcome = provision(&tree.root(), &mut fake, &cuts(HALVES));
    assert_eq!(
        fake.ran,
        ["nvidia-smi -i 00000000:07:00.0 -mig 1", "nvidia-smi mig -i 00000000:07:00.0 -cgi 3g.40gb,3g.40gb -C"]
    );
    // The library itself counts as a program that uses the GPU.
    assert_eq!(fake.order, ["library", "run", "run", "library"]);
    assert_eq!(outcome.gpus[0].slices, ["3g.40gb", "3g.40gb"]);
    if is_root() {
        assert_eq!(outcome.problems, Vec::<String>::new());
        assert_eq!(outcome.slots.iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>(), ["MIG-a", "MIG-b"]);
    }
    let mut again = sees().cut(0, &halves);
    provision(&tree.root(), &mut again, &cuts(HALVES));
    assert_eq!(again.ran, Vec::<String>::new());
}

#[test]
fn a_cut_that_fails_goes_no_further_and_is_told() {
    let tree = Tree::new().a100("0000:07:00.0", 0).h100("0000:1b:00.0", 1).driver();
    let mut fake = Fake { refuse_runs: true, ..Fake::default() };
    fake = fake.sees(&["0000:07:00.0", "0000:1b:00.0"]).cut(0, &[]);
    let outcome = provision(&tree.root(), &mut fake, &cuts(HALVES));
    assert_eq!(fake.ran, ["nvidia-smi -i 00000000:07:00.0 -mig 1"]);
    for told in [
        "nvidia-smi -i 00000000:07:00.0 -mig 1: exit status: 4",
        "the GPU 0000:07:00.0 is not cut as the site configuration wants it: 2 × 3g.40gb wanted, and it has MIG off",
        "the GPU 0000:1b:00.0 cannot be cut into slices",
    ] {
        assert!(outcome.problems.iter().any(|problem| problem.contains(told)), "{told}: {:?}", outcome.problems);
    }
}

#[test]
fn a_lost_gpu_does_not_have_another_one_cut() {
    let tree = Tree::new().h100("0000:1b:00.0", 0).h100("0000:43:00.0", 1).h100("0000:52:00.0", 2).driver();
    let mut fake = Fake::default().sees(&["0000:43:00.0", "0000:52:00.0"]).cut(0, &[]).cut(1, &[]);
    let second = HALVES.replace("'all'", "[1]");
    provision(&tree.root(), &mut fake, &cuts(&second));
    assert_eq!(fake.ran[0], "nvidia-smi -i 00000000:43:00.0 -mig 1");
    assert!(fake.ran.iter().all(|call| call.contains(" 00000000:43:00.0 ")), "{:?}", fake.ran);
}

#[test]
fn where_the_stages_do_not_end_no_gpu_is_used_and_the_machine_has_its_cpus() {
    let tree = Tree::new().h200("0000:3b:00.0", 0).h200("0000:5e:00.0", 1).driver();
    assert_eq!(deadline(&tree.root()).as_secs(), 120 + 2 * 60);
    let outcome = given_up(&tree.root(), "it hangs".into());
    assert_eq!((outcome.mode, outcome.problems), (Mode::Cpu, vec!["it hangs".to_owned()]));
    assert!(outcome.gpus.iter().all(|gpu| gpu.health.verdict == Verdict::Failed) && outcome.gpus.len() == 2);
    assert!(outcome.slots.is_empty() && outcome.devices.is_empty());
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
