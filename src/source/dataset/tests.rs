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
    lock_with(layer, Some(&client()), store)
}

fn lock_with(layer: &DatasetLayer, client: Option<&Client>, store: &Store) -> Result<LockedDataset, DatasetError> {
    resolve(layer, &Fetching { client, contents: true, progress: &|_| {} }, store)
}

fn client() -> Client {
    Client::new(Default::default())
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
    assert!(rows.is_current(&layer, &store).unwrap());
    let large = directory.path().join("rows/large.txt");
    fs::write(&large, vec![b'x'; 17 << 20]).unwrap();
    let rows = lock(&layer, &store).unwrap();
    assert_eq!(rows.files[2].sha256, Digest::of(&vec![b'x'; 17 << 20]));
    assert!(rows.is_current(&layer, &store).unwrap());
    fs::write(&large, vec![b'y'; 17 << 20]).unwrap();
    assert!(!rows.is_current(&layer, &store).unwrap());
    fs::remove_file(&large).unwrap();
    fs::write(directory.path().join("rows/a.jsonl"), "{\"text\":\"two\"}\n").unwrap();
    let rows = LockedDataset { files: rows.files[..2].to_vec(), ..rows };
    assert!(!rows.is_current(&layer, &store).unwrap());
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
    assert!(matches!(lock_with(&good, None, &store), Err(DatasetError::Offline)));
    let rows = lock(&good, &store).unwrap();
    assert_eq!(rows.files[0].name, "rows.jsonl");
    assert!(store.has_source(&rows.files[0].sha256, Some(ROWS.len() as u64)));
    assert!(matches!(lock(&named(Digest::of(b"other")), &store), Err(DatasetError::Http(_))));
    fs::remove_file(&file).unwrap();
    assert_eq!(lock_with(&good, None, &store).unwrap(), rows);
}

#[test]
fn what_another_process_fetches_is_waited_for_and_not_fetched_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let sha256 = Digest::of(ROWS.as_bytes());
    let file = LockedDataFile { name: "rows.jsonl".to_owned(), size: ROWS.len() as u64, sha256 };
    // Nothing is at the address: who asks there fails.
    let url = format!("file://{}", directory.path().join("rows.jsonl").display());
    let fetch = || address::download(&url, &file, &client(), &store, &|_| {});
    assert!(matches!(fetch(), Err(DatasetError::Http(_))));
    let other = store.downloads(crate::store::Downloads::Addresses).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| fetch().map_err(|error| error.to_string()));
        std::thread::sleep(std::time::Duration::from_millis(200));
        store.insert_source(Some(&sha256), u64::MAX, ROWS.as_bytes()).unwrap();
        drop(other);
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
    fetch().unwrap();
}
