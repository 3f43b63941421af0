//! The self-test of a machine, as `gapctl` asks for it, and what the kernel takes once the start is done.

use crate::{
    MACHINE,
    machine::{OVER, Site},
};
use serde_json::{Value, json};
use std::{fs, time::Duration};

/// Bytes of memory and of the disk that are tested.
const AMOUNT: u64 = 64 << 20;

#[test]
#[ignore = "boots a machine, in `make test-all`"]
fn a_machine_is_burnt_in_and_its_kernel_takes_no_more_modules() {
    let _machine = MACHINE.lock();
    let site = Site::new(768);
    let machine = site.switch_on();

    let report = site.file("report.json");
    let mut gapctl = site.gapctl();
    gapctl.args(["selftest", "--memory", &AMOUNT.to_string(), "--disk", &AMOUNT.to_string(), "-o"]).arg(&report);
    let said = gapctl.output().unwrap();
    assert!(said.status.success(), "{said:?}");
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let parts = report["parts"].as_array().unwrap().iter();
    let found: Vec<_> = parts.map(|part| (part["part"].clone(), part["on"].clone(), part["is_good"].clone())).collect();
    let good = |part: &str, on: &str| (json!(part), json!(on), json!(true));
    let wanted = [good("memory", ""), good("disk", ""), good("training", "processor, for want of a GPU")];
    assert_eq!((&report["is_good"], &found[..]), (&json!(true), &wanted[..]), "{report}");
    let files = site.client.get("/v1/files").unwrap();
    assert_eq!(files["data"], json!([]), "what was trained on is deleted");

    // More than there is, is found to be missing, and is no reason to try again.
    let amount = json!({"memory": AMOUNT, "disk": 8_u64 << 30});
    let test = site.client.post("/v1/appliance/selftest", &amount).unwrap()["id"].as_str().unwrap().to_owned();
    let ended = site.wait_within(Duration::from_secs(600), &test, OVER);
    assert_eq!((&ended["state"], &ended["starts"]), (&json!("failed"), &json!(1)), "{ended}\n{}", site.log(&test));
    let report = site.client.get(&format!("/v1/appliance/jobs/{test}/outputs/self-test.json")).unwrap();
    assert!(report["disk"]["faults"].to_string().contains("No space left"), "{report}");
    assert_eq!(report["memory"]["faults"], json!([]), "{report}");

    let locked = |system: &Value| (system["modules_locked"] == true).then_some(());
    site.client.wait_for("/v1/system", Duration::from_secs(120), locked).unwrap();
    assert!(site.console().contains("the kernel takes no more modules"), "{}", site.console());
    site.still_works();
    drop(machine);
}
