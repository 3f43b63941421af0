//! Resolution by example, on small made-up archives.

use super::{
    LockedPackage,
    index::{Index, IndexFile, tests::index_file},
    resolve::{Query, ResolveError, resolve},
};

fn run(
    files: &[IndexFile],
    packages: &[&str],
    adjust: impl Fn(&mut Query<'_>),
) -> Result<Vec<LockedPackage>, ResolveError> {
    let index = Index::parse(files, "amd64").unwrap();
    let packages: Vec<String> = packages.iter().map(|&text| text.to_owned()).collect();
    let mut query = Query::new(&packages);
    adjust(&mut query);
    resolve(&index, &query)
}

fn names(archive: &str, packages: &[&str]) -> String {
    adjusted(archive, packages, |_| {})
}

fn adjusted(archive: &str, packages: &[&str], adjust: impl Fn(&mut Query<'_>)) -> String {
    let locked = run(&[index_file(archive)], packages, adjust).unwrap();
    locked.iter().map(|package| format!("{} {}", package.name, package.version)).collect::<Vec<_>>().join(", ")
}

fn failure(archive: &str, packages: &[&str]) -> String {
    run(&[index_file(archive)], packages, |_| {}).unwrap_err().to_string()
}

#[test]
fn dependencies_come_along_in_their_highest_version() {
    let archive = "a 1 ; Depends: b (>= 1), c\nb 1\nb 2 ; Pre-Depends: d\nc 1\nd 1\nz 1";
    assert_eq!(names(archive, &["a"]), "a 1, b 2, c 1, d 1");
    assert_eq!(names(archive, &["a", "b<<2"]), "a 1, b 1, c 1");
    assert_eq!(names(archive, &["b=1"]), "b 1");
    assert_eq!(adjusted(archive, &["a"], |query| query.dependencies = false), "a 1");
}

#[test]
fn the_first_alternative_is_preferred_unless_another_is_wanted_anyway() {
    let archive = "a 1 ; Depends: x | y\nb 1 ; Depends: y\nx 1\ny 1\nc 1 ; Depends: gone | y";
    assert_eq!(names(archive, &["a"]), "a 1, x 1");
    assert_eq!(names(archive, &["c"]), "c 1, y 1");
    assert_eq!(names(archive, &["y", "a"]), "a 1, y 1");
}

#[test]
fn virtual_packages_are_provided_by_priority_then_name() {
    let archive = "a 1 ; Depends: v\nx 1 ; Provides: v\nw 1 ; Provides: v\ny 1 ; Provides: v ; Priority: standard";
    assert_eq!(names(archive, &["a"]), "a 1, y 1");
    assert_eq!(names(&archive.replace(" ; Priority: standard", ""), &["a"]), "a 1, w 1");
    assert_eq!(names("a 1 ; Depends: v (>= 2)\nx 1 ; Provides: v\ny 1 ; Provides: v (= 2)", &["a"]), "a 1, y 1");
    assert_eq!(names("x 1 ; Provides: v", &["v"]), "x 1");
    // Several provides of one name may be installed together.
    assert_eq!(names("x 1 ; Provides: v\ny 1 ; Provides: v", &["x", "y"]), "x 1, y 1");
}

#[test]
fn conflicts_and_breaks_steer_the_choice() {
    let archive = "a 1 ; Depends: x | y\nb 1 ; Conflicts: x\nx 1\ny 1";
    assert_eq!(names(archive, &["a", "b"]), "a 1, b 1, y 1");
    assert_eq!(names("a 2 ; Breaks: b (<< 2)\na 1\nb 1", &["b", "a"]), "a 1, b 1");
    // A package may conflict with the virtual package that it provides itself.
    let mta = "x 1 ; Provides: mta ; Conflicts: mta\ny 1 ; Provides: mta ; Conflicts: mta";
    assert_eq!(names(mta, &["x"]), "x 1");
    assert!(failure(mta, &["x", "y"]).contains("conflicts with mta"));
}

#[test]
fn backports_are_taken_only_where_nothing_else_will_do() {
    let mut backports = index_file("a 2\nb 1 ; Depends: a (>= 2)");
    backports.not_automatic = true;
    let files = [index_file("a 1"), backports];
    assert_eq!(run(&files, &["a"], |_| {}).unwrap()[0].version, "1");
    assert_eq!(run(&files, &["b"], |_| {}).unwrap()[0].version, "2");
}

/// What `packages` resolve to in `archive`, after `before` was resolved in `old`.
fn again(old: &str, before: &[&str], archive: &str, packages: &[&str], adjust: impl Fn(&mut Query<'_>)) -> String {
    let locked = run(&[index_file(old)], before, &adjust).unwrap();
    let locked: Vec<&LockedPackage> = locked.iter().collect();
    let files = [index_file(archive)];
    let index = Index::parse(&files, "amd64").unwrap();
    let packages: Vec<String> = packages.iter().map(|&text| text.to_owned()).collect();
    let mut query = Query { preferred: &locked, ..Query::new(&packages) };
    adjust(&mut query);
    let found = resolve(&index, &query).unwrap();
    found.iter().map(|package| format!("{} {}", package.name, package.version)).collect::<Vec<_>>().join(", ")
}

#[test]
fn what_was_chosen_before_does_not_move_while_it_will_do() {
    let old = "a 1 ; Depends: b\nb 1";
    let new = "a 1 ; Depends: b\na 2 ; Depends: b\nb 1\nb 2\nc 1 ; Depends: b\nd 1 ; Depends: b (>= 2)\ne 1";
    assert_eq!(names(new, &["a"]), "a 2, b 2");
    assert_eq!(again(old, &["a"], new, &["a"], |_| {}), "a 1, b 1");
    assert_eq!(again(old, &["a"], new, &["a", "c", "e"], |_| {}), "a 1, b 1, c 1, e 1");
    assert_eq!(again(old, &["a"], new, &["a", "d"], |_| {}), "a 1, b 2, d 1", "only what must move does");
    assert_eq!(again(old, &["a"], new, &["a=2"], |_| {}), "a 2, b 1");
    assert_eq!(again(old, &["a"], new, &["e"], |_| {}), "e 1", "what is no longer needed goes");
    let superseded = "a 2 ; Depends: b\nb 1\nb 2";
    assert_eq!(again(old, &["a"], superseded, &["a"], |_| {}), "a 2, b 1", "what is no longer offered is replaced");
    assert_eq!(again(old, &["a"], new, &["a"], |query| query.dependencies = false), "a 1");
}

#[test]
fn a_choice_that_was_made_before_is_made_again() {
    let archive = "a 1 ; Depends: x | y\nb 1 ; Depends: y\nx 1\ny 1\nz 1\nc 1 ; Depends: v\nv1 1 ; Provides: v\nv2 1 ; Provides: v";
    assert_eq!(again(archive, &["a", "b"], archive, &["a", "z"], |_| {}), "a 1, y 1, z 1");
    assert_eq!(again(archive, &["c", "v2"], archive, &["c"], |_| {}), "c 1, v2 1");
    let newer = archive.replace("y 1", "y 2").replace("v2 1", "v2 2");
    assert_eq!(again(archive, &["a", "b"], &newer, &["a"], |_| {}), "a 1, y 2", "also in a newer version");
    assert_eq!(again(archive, &["c", "v2"], &newer, &["c"], |_| {}), "c 1, v2 2");
    let archive = "a 1 ; Recommends: r | s\nb 1 ; Depends: s\nr 1\ns 1\ns 2";
    let before = |query: &mut Query<'_>| query.recommends = true;
    assert_eq!(again(archive, &["a", "b", "s=1"], archive, &["a"], before), "a 1, s 1");
}

#[test]
fn what_is_asked_for_by_name_is_not_replaced_by_what_provides_it() {
    let archive = "a 1 ; Depends: y\nx 1\ny 1 ; Provides: x";
    assert_eq!(names(archive, &["a", "x"]), "a 1, x 1, y 1");
    assert_eq!(again(archive, &["a"], archive, &["a", "x"], |_| {}), "a 1, x 1, y 1");
}

#[test]
fn recommendations_and_essential_packages_are_taken_on_request_only() {
    let archive =
        "a 1 ; Recommends: r, gone, k\nr 1 ; Recommends: s | t\ns 1\nt 1\nk 1 ; Conflicts: a\ne 1 ; Essential: yes";
    assert_eq!(names(archive, &["a"]), "a 1");
    assert_eq!(adjusted(archive, &["a"], |query| query.recommends = true), "a 1, r 1, s 1");
    assert_eq!(adjusted(archive, &["a"], |query| query.essential = true), "a 1, e 1");
}

#[test]
fn lower_layers_stay_as_they_are() {
    let archive =
        "base 1 ; Provides: v\nbase 2 ; Provides: v\na 1 ; Depends: base, v, c\nb 1 ; Depends: base (>= 2)\nc 1";
    let installed = run(&[index_file(archive)], &["base=1"], |_| {}).unwrap();
    let above = |packages: &[&str]| {
        let index_files = [index_file(archive)];
        let index = Index::parse(&index_files, "amd64").unwrap();
        let packages: Vec<String> = packages.iter().map(|&text| text.to_owned()).collect();
        resolve(&index, &Query { installed: &installed, ..Query::new(&packages) })
    };
    let names: Vec<String> = above(&["a"]).unwrap().into_iter().map(|package| package.name).collect();
    assert_eq!(names, ["a", "c"]);
    let error = above(&["b"]).unwrap_err().to_string();
    assert!(error.contains("b 1 needs base (>= 2)") && error.contains("a lower layer holds base 1"), "{error}");
}

#[test]
fn a_lower_layer_may_hold_what_the_index_no_longer_has() {
    let installed = run(&[index_file("old 1 ; Provides: v (= 3) ; Conflicts: x")], &["old"], |_| {}).unwrap();
    let files = [index_file("old 2\na 1 ; Depends: v (>= 2), old (<< 2)\nx 1")];
    let index = Index::parse(&files, "amd64").unwrap();
    let ask = |name: &str| {
        let packages = [name.to_owned()];
        resolve(&index, &Query { installed: &installed, ..Query::new(&packages) })
    };
    assert_eq!(ask("a").unwrap().len(), 1);
    assert!(ask("x").unwrap_err().to_string().contains("old 1 conflicts with x"));
}

#[test]
fn what_does_not_exist_is_named_with_what_is_near() {
    assert_eq!(
        failure("openssh-server 1\nopenssh-client 1", &["openssh-sever"]),
        "there is no package `openssh-sever` in test; did you mean openssh-server?"
    );
    let error = failure("a 1\na 2", &["a=3"]);
    assert_eq!(error, "there is no version of `a (= 3)` in test; on offer: 2, 1");
}

#[test]
fn the_chain_that_conflicts_is_told() {
    let error = failure("a 1 ; Depends: b\nb 1 ; Depends: c (>= 2)\nc 1", &["a"]);
    for sentence in ["a was asked for", "a 1 needs b", "b 1 needs c (>= 2), but only c 1 is on offer"] {
        assert!(error.contains(sentence), "{error}");
    }
    let error = failure("a 1 ; Depends: b ; Conflicts: c\nb 1 ; Depends: c\nc 1", &["a"]);
    assert!(error.contains("a 1 conflicts with c, so c 1 cannot be installed with it"), "{error}");
}

#[test]
fn the_answer_is_the_same_every_time() {
    let mut archive = String::new();
    for package in 0..60 {
        let (one, two) = ((package * 7 + 3) % 60, (package * 11 + 5) % 60);
        archive.push_str(&format!("p{package:02} 1 ; Depends: v{one} | p{two:02} ; Provides: v{}\n", package % 9));
        archive.push_str(&format!(
            "p{package:02} 2 ; Depends: p{one:02} ; Provides: v{} ; Breaks: p{two:02} (<< 2)\n",
            package % 7
        ));
    }
    let first = names(&archive, &["p01", "p30"]);
    for _ in 0..20 {
        assert_eq!(names(&archive, &["p01", "p30"]), first);
    }
}
