//! The first admin's token: who gets it, once, and who does not.

use crate::machine::{Answer, Machine, TOKEN};
use gap_agent::server::Limits;
use gap_jobs::Database;
use serde_json::{Value, json};

const WRONG: &str = "0000-0000-0000-0000";

async fn claim(machine: &Machine, code: &str) -> Answer {
    machine.post("/v1/appliance/claim", "", &json!({"code": code})).await
}

fn outcome(answer: &Answer) -> (u16, &Value) {
    (answer.status, &answer.body["error"]["code"])
}

/// A machine whose site names no token, its database, and the code that its console shows.
fn unclaimed() -> (Machine, Database, String, tempfile::TempDir) {
    let machine = Machine::start_with(Limits::default(), None);
    let database = Database::in_memory().unwrap();
    let code = machine.access.attach(database.clone(), 0).unwrap().unwrap();
    let directory = tempfile::tempdir().unwrap();
    machine.audit.attach(&directory.path().join("audit.log")).unwrap();
    (machine, database, code, directory)
}

#[tokio::test]
async fn who_reads_the_console_becomes_the_first_admin_and_nobody_after_them() {
    let (machine, database, code, _directory) = unclaimed();
    assert_eq!(machine.get("/v1/system", Some(&code)).await.status, 401, "the code is no token");
    assert_eq!(outcome(&claim(&machine, WRONG).await), (403, &json!("invalid_code")));
    let claimed = claim(&machine, &code.to_uppercase().replace('-', " ")).await;
    assert_eq!((claimed.status, &claimed.body["role"]), (200, &json!("admin")), "{claimed:?}");
    let token = claimed.body["token"].as_str().unwrap();
    assert_eq!(outcome(&claim(&machine, &code).await), (409, &json!("conflict")));

    let audit = machine.get("/v1/appliance/audit", Some(token)).await.body;
    let entries: Vec<Value> = audit["data"].as_array().unwrap().iter().map(|record| record["entry"].clone()).collect();
    let told: Vec<_> = entries.iter().map(|entry| (&entry["who"], &entry["what"], &entry["outcome"])).collect();
    let (who, what) = (json!("claim"), json!("POST /v1/appliance/claim"));
    let made = json!(format!("made {} (admin, first)", claimed.body["id"].as_str().unwrap()));
    let outcomes = [&json!("refused 403"), &json!("asked"), &made, &json!("refused 409")];
    assert_eq!(told, outcomes.map(|outcome| (&who, &what, outcome)));
    assert!(!audit.to_string().contains(token), "the token itself is not recorded");

    // The same data volume in the next boot.
    let again = Machine::start_with(Limits::default(), None);
    assert_eq!(again.access.attach(database, 1).unwrap(), None);
    assert_eq!(again.get("/v1/appliance/tokens", Some(token)).await.body["data"][0]["name"], "first");
    assert_eq!(claim(&again, &code).await.status, 409);
}

#[tokio::test]
async fn guessing_locks_the_address_out_and_the_right_code_does_not_help_then() {
    let (machine, _database, code, _directory) = unclaimed();
    for _ in 0..10 {
        assert_eq!(claim(&machine, WRONG).await.status, 403);
    }
    for code in [WRONG, &code] {
        let answer = claim(&machine, code).await;
        assert_eq!(answer.status, 429);
        assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    }
    assert!(machine.access.list().is_empty());
}

#[tokio::test]
async fn who_claims_what_is_claimed_again_and_again_fills_no_log() {
    let (machine, _database, code, _directory) = unclaimed();
    let claimed = claim(&machine, &code).await;
    for _ in 0..10 {
        assert_eq!(claim(&machine, &code).await.status, 409);
    }
    assert_eq!(claim(&machine, &code).await.status, 429);
    assert_eq!(claimed.status, 200);
    assert_eq!(machine.audit.read(0, 1000).unwrap().len(), 12, "asked, made, and ten refused");
}

#[tokio::test]
async fn nothing_is_claimed_before_the_data_volume_is_there_or_where_the_site_names_a_token() {
    let machine = Machine::start_with(Limits::default(), None);
    let early = claim(&machine, WRONG).await;
    assert_eq!(outcome(&early), (503, &json!("not_ready")));
    assert!(early.head.contains("retry-after: "), "{}", early.head);
    let sites = Machine::start(Limits::default());
    sites.access.attach(Database::in_memory().unwrap(), 0).unwrap();
    assert_eq!(outcome(&claim(&sites, WRONG).await), (409, &json!("conflict")));
    assert_eq!(sites.get("/v1/system", Some(TOKEN)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_claim_at_once_one_becomes_admin() {
    let (machine, _database, code, _directory) = unclaimed();
    let machine = std::sync::Arc::new(machine);
    let claims: Vec<_> = (0..8)
        .map(|_| {
            let (machine, code) = (machine.clone(), code.clone());
            tokio::spawn(async move { claim(&machine, &code).await.status })
        })
        .collect();
    let mut statuses = Vec::new();
    for claim in claims {
        statuses.push(claim.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
    assert_eq!(machine.access.list().len(), 1);
}
