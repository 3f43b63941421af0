//! The schemas that engines in other languages read are the ones of the types.

use std::{env, fs, path::Path};

#[test]
fn the_schemas_checked_in_are_those_of_the_types() {
    for (name, schema) in gap_contract::schemas() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(name);
        let mut schema = serde_json::to_value(&schema).unwrap();
        // Other crates of a build decide whether objects keep their order.
        schema.sort_all_objects();
        let ours = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if env::var_os("GAP_CONTRACT_WRITE_SCHEMAS").is_some() {
            fs::write(&path, &ours).unwrap();
        }
        let theirs = fs::read_to_string(&path).unwrap_or_default();
        assert!(ours == theirs, "{name} is stale; run this test with GAP_CONTRACT_WRITE_SCHEMAS=1");
    }
}
