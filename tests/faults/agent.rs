//! An agent that is killed while jobs run.

use crate::{
    MACHINE,
    machine::{LITTLE, OVER, STEPS, Site, examples},
};
use serde_json::json;
use std::time::Duration;

#[test]
#[ignore = "boots a machine, in `make test-all`"]
fn a_killed_agent_loses_nothing_and_training_goes_on() {
    let _machine = MACHINE.lock();
    let site = Site::new(1536);
    let machine = site.switch_on();
    let rows = site.file("rows.jsonl");
    examples(&rows, 40);
    let file = site.client.bring(&rows, "fine-tune").unwrap().id;
    site.wait_until_good(&file);
    let training = site.train(&file, STEPS);
    let counting = site.run("count", json!({"env": {"STEPS": "200"}, "memory": LITTLE}));
    let waiting = site.run("nothing", json!({"needs": [training.as_str()]}));
    site.wait_until_step(&training, 10);

    for _ in 0..3 {
        let murder = site.run("murder", json!({"memory": LITTLE}));
        let ended = site.wait(&murder, OVER);
        assert_eq!((&ended["state"], &ended["starts"]), (&json!("succeeded"), &json!(2)), "{ended}");
        assert!(site.log(&murder).contains("survived"), "{}", site.log(&murder));
    }

    site.trained_as_if_nothing_had_been(&training, &site.trained_undisturbed(&file));
    let counted = site.wait_within(Duration::from_secs(300), &counting, OVER);
    assert_eq!(counted["state"], "succeeded", "{counted}\n{}", site.log(&counting));
    assert!(counted["starts"].as_u64().unwrap() > 1, "{counted}");
    assert!(site.log(&counting).contains("goes on from"), "{}", site.log(&counting));
    assert_eq!(site.wait(&waiting, OVER)["state"], "succeeded");
    drop(machine);
}
