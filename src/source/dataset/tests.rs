use super::*;
use crate::recipe::Recipe;
use std::fs;

const ROWS: &str = "{\"text\":\"one\"}\n";

fn layer(directory: &std::path::Path, lines: &str) -> DatasetLayer {
    let recipe = directory.join("a.toml");
    let text = format!(
        "[appliance]\nname = \"a\"\nversion = \"1\"\nserial = 1\narch = \"x86_64\"\n[image.i]\nlayers = [\"f\"]\n\
         [layer.f]\nfiles = [{{ path = \"f\", to = \"/f\" }}]\n[dataset.d]\n{lines}\n"
    );
    fs::write(&recipe, text).unwrap();
    let recipe = Recipe::load(&recipe).unwrap();
    let crate::recipe::LayerKind::Dataset(layer) = recipe.layers["dataset/d"].kind.clone() else { panic!() };
    layer
}

fn lock(layer: &DatasetLayer, store: &Store) -> Result<LockedDataset, DatasetError> {
    resolve(layer, Some(&Client::new(Default::default())), store, &|_| {})
}

#[test]
fn files_beside_the_recipe_are_pinned_and_a_change_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    fs::create_dir(directory.path().join("rows")).unwrap();
    for name in ["b.jsonl", "a.jsonl", "README.md"] {
        fs::write(directory.path().join("rows").join(name), ROWS).unwrap();
    }
    let layer = layer(directory.path(), "path = \"rows\"");
    let rows = lock(&layer, &store).unwrap();
    let names: Vec<&str> = rows.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["rows/a.jsonl", "rows/b.jsonl"]);
    assert_eq!(rows.files[0].sha256, Digest::of(ROWS.as_bytes()));
    assert!(rows.is_current(&layer).unwrap());
    fs::write(directory.path().join("rows/a.jsonl"), "{\"text\":\"two\"}\n").unwrap();
    assert!(!rows.is_current(&layer).unwrap());
}

#[test]
fn a_file_at_an_address_is_fetched_once_and_only_the_one_that_was_named() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let file = directory.path().join("rows.jsonl");
    fs::write(&file, ROWS).unwrap();
    let named = |sha256: Digest| {
        layer(directory.path(), &format!("url = \"file://{}\"\nsha256 = \"{}\"", file.display(), sha256.to_hex()))
    };
    let good = named(Digest::of(ROWS.as_bytes()));
    assert!(matches!(resolve(&good, None, &store, &|_| {}), Err(DatasetError::Offline)));
    let rows = lock(&good, &store).unwrap();
    assert_eq!(rows.files[0].name, "rows.jsonl");
    assert!(store.has_source(&rows.files[0].sha256, Some(ROWS.len() as u64)));
    assert!(matches!(lock(&named(Digest::of(b"other")), &store), Err(DatasetError::Http(_))));
    fs::remove_file(&file).unwrap();
    assert_eq!(resolve(&good, None, &store, &|_| {}).unwrap(), rows);
}
