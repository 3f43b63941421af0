//! Data sets of a recipe: pinned, prepared, in an image of their own and in those that name them; the same bytes each
//! time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::{Project, fail_with, gapimage, said, stdout, succeed};
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

const SECTIONS: &str = "[image.train]\nlayers = [\"files\"]\ndatasets = [\"tickets\"]\n\
                        [layer.files]\nfiles = [{ path = \"site\", to = \"/srv\" }]\n";

/// Rows that resemble none of the others; one has an address of a person, one is there twice.
fn rows() -> String {
    let row = |n: u32| {
        let words: String = (0..12).map(|word| format!("w{} ", n * 100 + word)).collect();
        format!("{{\"instruction\":\"{words}\",\"input\":\"\",\"output\":\"answer {n}\"}}\n")
    };
    let mut rows: String = (0..60).map(row).collect();
    rows += &row(7);
    rows + "{\"instruction\":\"Write to jane.roe@example.org\",\"input\":\"\",\"output\":\"done\"}\n"
}

fn project(rows: &str, dataset: &str) -> Project {
    let project = Project::new(&[("motd", b"hello")]);
    fs::create_dir(project.path().join("tickets")).unwrap();
    fs::write(project.path().join("tickets/a.jsonl"), rows).unwrap();
    project.recipe(&format!("{SECTIONS}[dataset.tickets]\n{dataset}\n"));
    project
}

fn build(project: &Project) -> Command {
    let mut command = gapimage();
    command.args(["build", "-o"]).arg(project.path().join("a.gap")).arg(project.path().join("recipe.toml"));
    command
}

/// The files of an image, unpacked by tools of others.
fn unpacked(project: &Project, artifact: &Path, image: &str) -> PathBuf {
    let layout = project.path().join(format!("layout-{image}"));
    let source = format!("oci-archive:{}:{image}", artifact.display());
    succeed(Command::new("skopeo").arg("copy").arg(source).arg(format!("oci:{}:{image}", layout.display())));
    let bundle = project.path().join(format!("bundle-{image}"));
    let image = format!("{}:{image}", layout.display());
    succeed(Command::new("umoci").args(["unpack", "--rootless", "--image"]).arg(image).arg(&bundle));
    bundle.join("rootfs")
}

#[test]
fn a_data_set_is_prepared_into_its_own_image_and_into_those_that_name_it() {
    let project = project(&rows(), "path = \"tickets\"");
    let artifact = project.signed("a.gap");
    let mut parts = Vec::new();
    for image in ["tickets", "train"] {
        let directory = unpacked(&project, &artifact, image).join("data/tickets");
        let mut names: Vec<String> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["card.json", "card.md", "test.jsonl", "train.jsonl", "validation.jsonl"]);
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        let all = read("train.jsonl") + &read("validation.jsonl") + &read("test.jsonl");
        assert_eq!(all.lines().count(), 61);
        assert!(all.contains("Write to [EMAIL_1]") && !all.contains("jane"), "{all}");
        let card: serde_json::Value = serde_json::from_str(&read("card.json")).unwrap();
        assert_eq!(card["examples"]["exact_duplicates"], 1);
        assert_eq!(card["inputs"][0]["name"], "tickets/a.jsonl");
        parts.push(all);
    }
    assert_eq!(parts[0], parts[1]);
    let lock = fs::read_to_string(project.path().join("recipe.lock")).unwrap();
    assert!(lock.contains("name = \"tickets/a.jsonl\""), "{lock}");
}

#[test]
fn the_same_rows_give_the_same_bytes_in_another_directory_and_store() {
    let one = project(&rows(), "path = \"tickets\"");
    let two = project(&rows(), "path = \"tickets\"");
    succeed(&mut build(&one));
    let store = two.path().join("own-store");
    succeed(build(&two).arg("--store").arg(&store));
    let layers = |project: &Project| {
        let files = succeed(gapimage().arg("inspect").arg(project.path().join("a.gap")).args(["--files", "tickets"]));
        stdout(&files)
    };
    assert_eq!(layers(&one), layers(&two));
}

#[test]
fn rows_that_change_are_prepared_again_and_nothing_else_is() {
    let project = project(&rows(), "path = \"tickets\"");
    succeed(&mut build(&project));
    fs::write(project.path().join("tickets/a.jsonl"), rows() + "{\"instruction\":\"new\",\"output\":\"row\"}\n")
        .unwrap();
    let output = said(&succeed(&mut build(&project)));
    assert!(output.contains("dataset/tickets"), "{output}");
    assert!(!output.contains("layer `files`: building"), "{output}");
}

#[test]
fn broken_rows_are_all_named_and_nothing_is_made() {
    let rows = rows() + "{\"instruction\":\"a\"}\nnonsense\n";
    let project = project(&rows, "path = \"tickets\"");
    let output = fail_with(1, &mut build(&project));
    assert!(output.contains("tickets/a.jsonl:63") && output.contains("the field is missing"), "{output}");
    assert!(output.contains("tickets/a.jsonl:64:"), "{output}");
    assert!(!project.path().join("a.gap").exists());
    let project = self::project(&rows, "path = \"tickets\"\nbad_rows = \"leave-out\"");
    succeed(&mut build(&project));
}

#[test]
fn personal_data_can_be_refused_and_is_not_repeated() {
    let project = project(&rows(), "path = \"tickets\"\npii = \"refuse\"");
    let output = fail_with(1, &mut build(&project));
    assert!(
        output.contains("1 EMAIL") && output.contains("tickets/a.jsonl:62") && !output.contains("jane"),
        "{output}"
    );
}

/// Answers every request with these bytes.
fn serve(body: Vec<u8>) -> String {
    serve_with(move |_, stream| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    })
}

/// Answers every request, of which the first line is given, as `answer` does.
fn serve_with(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let count = stream.read(&mut request).unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..count]).into_owned();
            answer(request.lines().next().unwrap_or_default(), &mut stream);
        }
    });
    format!("http://{address}")
}

#[test]
fn a_file_at_an_address_is_found_behind_a_redirect_and_refused_when_it_is_cut_short() {
    let digest = gap_format::Digest::of(rows().as_bytes()).to_hex();
    let end = serve(rows().into_bytes());
    let redirecting = serve_with(move |_, stream| {
        let head =
            format!("HTTP/1.1 302 Found\r\nLocation: {end}/x.jsonl\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
    });
    let named = |address: &str| project(&rows(), &format!("url = \"{address}/tickets.jsonl\"\nsha256 = \"{digest}\""));
    let build = |project: &Project| {
        let mut command = build(project);
        command.arg("--store").arg(project.path().join("store"));
        command
    };
    succeed(&mut build(&named(&redirecting)));
    let circle = serve_with(|request, stream| {
        let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
        let head = format!("HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
    });
    let output = fail_with(1, &mut build(&named(&circle)));
    assert!(output.contains("redirect"), "{output}");
    let cut = serve_with(|_, stream| {
        let rows = rows();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rows.len());
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&rows.as_bytes()[..100]));
    });
    let project = named(&cut);
    let output = fail_with(1, &mut build(&project));
    assert!(output.contains("dataset/tickets") && output.contains("unresolved"), "{output}");
    assert!(!project.path().join("a.gap").exists());
}

#[test]
fn a_file_at_an_address_is_taken_only_if_it_is_the_one_that_was_named() {
    let own = tempfile::tempdir().unwrap();
    let store = own.path().join("store");
    let digest = gap_format::Digest::of(rows().as_bytes()).to_hex();
    let address = serve(rows().into_bytes());
    let named = |digest: &str| project(&rows(), &format!("url = \"{address}/tickets.jsonl\"\nsha256 = \"{digest}\""));
    let wrong = fail_with(1, build(&named(&"0".repeat(64))).arg("--store").arg(&store));
    assert!(wrong.contains("was promised"), "{wrong}");
    let project = named(&digest);
    succeed(build(&project).arg("--store").arg(&store));
    let lock = fs::read_to_string(project.path().join("recipe.lock")).unwrap();
    assert!(lock.contains(&digest) && !lock.contains("127.0.0.1"), "{lock}");
    fs::remove_file(project.path().join("a.gap")).unwrap();
    succeed(build(&project).arg("--offline").arg("--store").arg(&store));
}
