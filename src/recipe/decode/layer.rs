//! Decoding of layers, one function a kind.

use super::{Mention, checked, run::run, wheels::wheels};
use crate::{
    layer::tree::TreePath,
    recipe::{
        CargoLayer, DebianLayer, FileItem, FilesLayer, Layer, LayerKind, PackageRequest, Workspace, name,
        problem::{At, Problems, list, nearest},
        section::{Placed, Section},
        value::{Kind, Value},
    },
};
use std::path::PathBuf;

/// The keys that choose a layer's kind.
const KINDS: [&str; 5] = ["debian", "cargo", "files", "wheels", "run"];

/// Decodes the layer `name`; the definition that it uses is filled in already. `defaults` is the recipe's `[debian]`.
pub(super) fn layer(
    name: &str,
    at: &At,
    value: &Value,
    defaults: &DebianDefaults,
    mentions: &mut Vec<Mention>,
    problems: &Problems,
) -> Option<Layer> {
    let section = Section::open(format!("the layer `{name}`"), value, problems)?;
    let mut chosen = None;
    for (key, body) in section.entries() {
        if !KINDS.contains(&key.name.as_str()) {
            let help = match nearest(&key.name, KINDS.into_iter().chain(["use"])) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("a layer has one of {}, or `use`", list(&KINDS)),
            };
            problems.add_with_help(&key.at, format!("unknown key `{}` in the layer `{name}`", key.name), help);
        } else if let Some((first, _)) = chosen {
            let message = format!("the layer `{name}` has both `{first}` and `{}`", key.name);
            problems.add_with_help(&key.at, message, "a layer is made of one thing: make two layers of it");
        } else {
            chosen = Some((key.name.as_str(), body));
        }
    }
    let Some((kind, body)) = chosen else {
        if section.entries().next().is_none() {
            let help = format!("give it one of {}, or `use`", list(&KINDS));
            problems.add_with_help(at, format!("the layer `{name}` is empty"), help);
        }
        return None;
    };
    let kind = match kind {
        "debian" => LayerKind::Debian(debian(name, body, defaults, problems)?),
        "cargo" => LayerKind::Cargo(cargo(name, body, mentions, problems)?),
        "run" => LayerKind::Run(run(name, body, mentions, problems)?),
        "wheels" => LayerKind::Wheels(wheels(name, body, mentions, problems)?),
        _ => LayerKind::Files(files(name, body, problems)?),
    };
    Some(Layer { name: name.to_owned(), kind, line: at.line_column().0 })
}

/// What a recipe's `[debian]` sets for its Debian layers, or what one layer sets for itself.
#[derive(Debug, Clone, Default)]
pub(super) struct DebianDefaults {
    suite: Option<String>,
    components: Option<Vec<String>>,
    mirror: Option<String>,
    keyring: Option<PathBuf>,
}

/// Decodes the recipe's `[debian]`.
pub(super) fn debian_defaults(value: &Value, problems: &Problems) -> DebianDefaults {
    let Some(mut section) = Section::open("`[debian]`", value, problems) else { return DebianDefaults::default() };
    let defaults = archive(&mut section, problems);
    section.finish();
    defaults
}

fn archive(section: &mut Section<'_>, problems: &Problems) -> DebianDefaults {
    let suite = section.string("suite").and_then(|suite| {
        checked(&format!("the suite `{}`", suite.value), suite.value, suite.at, name::suite, problems)
    });
    let listed = section.list("components");
    let components = section.strings("components").into_iter().filter_map(|component| {
        let what = format!("the component `{}`", component.value);
        checked(&what, component.value, component.at, name::suite, problems).map(str::to_owned)
    });
    let components: Vec<String> = components.collect();
    if let Some(list) = listed.as_ref().filter(|list| list.value.is_empty()) {
        problems.add_with_help(list.at, "there are no components", "most packages are in `main`");
    }
    let mirror = section.string("mirror").and_then(|mirror| {
        checked(&format!("the mirror `{}`", mirror.value), mirror.value, mirror.at, name::mirror, problems)
    });
    let keyring = section.string("keyring").map(|keyring| keyring.at.file.dir().join(keyring.value));
    DebianDefaults {
        suite: suite.map(str::to_owned),
        components: listed.map(|_| components),
        mirror: mirror.map(str::to_owned),
        keyring,
    }
}

fn debian(name: &str, value: &Value, defaults: &DebianDefaults, problems: &Problems) -> Option<DebianLayer> {
    let mut section = Section::open(format!("`debian` of the layer `{name}`"), value, problems)?;
    let own = archive(&mut section, problems);
    section.required("packages", "[\"base-files\"]");
    let packages: Vec<PackageRequest> =
        section.strings("packages").iter().filter_map(|text| package(text, problems)).collect();
    let assume: Vec<String> =
        section.strings("assume").iter().filter_map(|name| package_name(name.value, name.at, problems)).collect();
    let configure = section.boolean("configure", false);
    let essential = section.boolean("essential", false);
    let recommends = section.boolean("recommends", false);
    let dependencies = section.boolean("dependencies", true);
    if packages.is_empty() && !essential && problems.is_empty() {
        let help = "name packages, or ask for all essential ones with `essential = true`";
        problems.add_with_help(section.at, format!("the layer `{name}` asks for no packages"), help);
    }
    if recommends && !dependencies {
        let help = "leave out one of the two";
        problems.add_with_help(section.at, "`recommends = true` contradicts `dependencies = false`", help);
    }
    let suite = own.suite.or_else(|| defaults.suite.clone());
    if suite.is_none() && problems.is_empty() {
        let help = "add `suite = \"trixie\"` here or under `[debian]`";
        problems.add_with_help(section.at, format!("the layer `{name}` does not say which suite it is from"), help);
    }
    section.finish();
    Some(DebianLayer {
        suite: suite?,
        components: own.components.or_else(|| defaults.components.clone()).unwrap_or_else(|| vec!["main".to_owned()]),
        mirror: own.mirror.or_else(|| defaults.mirror.clone()),
        keyring: own.keyring.or_else(|| defaults.keyring.clone()),
        packages,
        assume,
        configure,
        essential,
        recommends,
        dependencies,
    })
}

fn package(text: &Placed<'_, &str>, problems: &Problems) -> Option<PackageRequest> {
    let (name, constraint) = text.value.split_at(text.value.find(['=', '<', '>']).unwrap_or(text.value.len()));
    let name = package_name(name.trim_end(), text.at, problems)?;
    if constraint.is_empty() {
        return Some(PackageRequest { name, constraint: None });
    }
    let found = ["=", ">=", "<=", ">>", "<<"].into_iter().rev();
    let split = found.filter_map(|operator| Some((operator, constraint.strip_prefix(operator)?.trim_start()))).next();
    let Some((operator, version)) = split else {
        let help = "Debian compares with `=`, `>=`, `<=`, `>>` (later) and `<<` (earlier)";
        problems.add_with_help(text.at, format!("`{}` is ambiguous", text.value.escape_debug()), help);
        return None;
    };
    let what = format!("the version `{}`", version.escape_debug());
    let version = checked(&what, version, text.at, name::debian_version, problems)?;
    Some(PackageRequest { name, constraint: Some(format!("{operator}{version}")) })
}

fn package_name(name: &str, at: &At, problems: &Problems) -> Option<String> {
    let what = format!("the package name `{}`", name.escape_debug());
    checked(&what, name, at, name::debian_package, problems).map(str::to_owned)
}

fn cargo(name: &str, value: &Value, mentions: &mut Vec<Mention>, problems: &Problems) -> Option<CargoLayer> {
    let mut section = Section::open(format!("`cargo` of the layer `{name}`"), value, problems)?;
    section.required("workspace", "\"builtin\"");
    let workspace = section.string("workspace").and_then(|workspace| {
        if workspace.value == Workspace::BUILTIN {
            return Some(Workspace::Builtin);
        }
        let path = checked("the path of `workspace`", workspace.value, workspace.at, name::relative_path, problems)?;
        Some(Workspace::Directory(workspace.at.file.dir().join(path)))
    });
    section.required("package", "\"PACKAGE\"");
    let package = identifier(&mut section, "package", problems);
    let bin = identifier(&mut section, "bin", problems).or_else(|| package.clone());
    let to = match section.string("to") {
        Some(to) => destination("to", &to, problems),
        None => bin.as_ref().and_then(|bin| TreePath::new(format!("usr/bin/{bin}")).ok()),
    };
    let static_link = section.boolean("static", false);
    let features = section.strings("features").into_iter().filter_map(|feature| {
        let what = format!("the feature `{}`", feature.value.escape_debug());
        checked(&what, feature.value, feature.at, name::feature, problems).map(str::to_owned)
    });
    let mut features: Vec<String> = features.collect();
    features.sort();
    features.dedup();
    section.required("build_root", "\"LAYER\" (a layer with gcc and libc6-dev)");
    let build_root = section.string("build_root");
    if let Some(root) = &build_root {
        let by_layer = Some(name.to_owned());
        mentions.push(Mention { layer: root.value.to_owned(), at: root.at.clone(), by_layer });
    }
    section.finish();
    Some(CargoLayer {
        workspace: workspace?,
        package: package?,
        bin: bin?,
        to: to?,
        static_link,
        features,
        build_root: build_root?.value.to_owned(),
    })
}

fn identifier(section: &mut Section<'_>, key: &'static str, problems: &Problems) -> Option<String> {
    let text = section.string(key)?;
    let what = format!("the name `{}`", text.value.escape_debug());
    checked(&what, text.value, text.at, name::identifier, problems).map(str::to_owned)
}

/// The path in an image that `key` names.
pub(super) fn destination(key: &str, to: &Placed<'_, &str>, problems: &Problems) -> Option<TreePath> {
    let shown = to.value.escape_debug();
    match TreePath::new(to.value) {
        Ok(path) if path.is_root() => {
            let help = "name the place in the image";
            problems.add_with_help(to.at, format!("`{key} = \"{shown}\"` names no file"), help);
            None
        }
        Ok(path) if to.value.starts_with('/') => Some(path),
        Ok(path) => {
            let message = format!("`{key} = \"{shown}\"` is not absolute");
            problems.add_with_help(to.at, message, format!("write `{path}`"));
            None
        }
        Err(error) => {
            let help = "it is a path in the image, from its root";
            problems.add_with_help(to.at, format!("`{key} = \"{shown}\"` is not allowed: {error}"), help);
            None
        }
    }
}

fn files(name: &str, value: &Value, problems: &Problems) -> Option<FilesLayer> {
    let Kind::Array(items) = &value.kind else {
        let help = "write `files = [{ path = \"motd\", to = \"/etc/motd\" }]`";
        problems.add_with_help(&value.at, format!("`files` of the layer `{name}` should be a list"), help);
        return None;
    };
    if items.is_empty() {
        problems.add(&value.at, format!("the layer `{name}` has no files"));
    }
    let what = format!("a file of the layer `{name}`");
    Some(FilesLayer { items: items.iter().filter_map(|item| file(&what, item, problems)).collect() })
}

fn file(what: &str, value: &Value, problems: &Problems) -> Option<FileItem> {
    let mut section = Section::open(what, value, problems)?;
    section.required("path", "\"motd\"");
    let path = section.string("path");
    section.required("to", "\"/etc/motd\"");
    // A directory may be laid over the root of the image.
    let to = section.string("to").filter(|to| to.value == "/" || destination("to", to, problems).is_some());
    let mode = section.integer("mode").and_then(|mode| match u32::try_from(mode.value) {
        Ok(bits) if bits <= 0o7777 => Some(bits),
        _ => {
            let help = "permission bits are written in octal: `0o644`";
            problems.add_with_help(mode.at, format!("`mode = {}` is no file mode", mode.value), help);
            None
        }
    });
    section.finish();
    let path = path?;
    let shown = format!("the path `{}`", path.value.escape_debug());
    let written = checked(&shown, path.value, path.at, name::confined_path, problems)?;
    Some(FileItem { base: path.at.file.dir().to_owned(), path: written.to_owned(), to: to?.value.to_owned(), mode })
}
