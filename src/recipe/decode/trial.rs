//! Decoding of `[[test]]`.

use super::{Mention, carried_layers, checked, run};
use crate::recipe::{
    Image, Test, name,
    problem::{At, Problems, nearest},
    section::Section,
    value::{Kind, Value},
};

/// Decodes all tests, of these `images`.
pub(super) fn tests(value: &Value, images: &[Image], mentions: &mut Vec<Mention>, problems: &Problems) -> Vec<Test> {
    let Kind::Array(items) = &value.kind else {
        problems.add_with_help(&value.at, "tests should be a list", "write each as `[[test]]`");
        return Vec::new();
    };
    let mut tests: Vec<Test> = Vec::new();
    for item in items {
        let Some((test, at)) = test(item, images, mentions, problems) else { continue };
        if tests.iter().any(|other| other.name == test.name) {
            problems.add(at, format!("there is a test `{}` already", test.name));
        }
        tests.push(test);
    }
    tests
}

fn test<'t>(
    value: &'t Value,
    images: &[Image],
    mentions: &mut Vec<Mention>,
    problems: &Problems,
) -> Option<(Test, &'t At)> {
    let mut section = Section::open("a test", value, problems)?;
    section.required("name", "\"it-answers\"");
    let named = section.string("name").and_then(|text| {
        checked(&format!("the name `{}` of a test", text.value), text.value, text.at, name::oci_name, problems)
    });
    section.required("image", "\"IMAGE\"");
    let image = section.string("image");
    if let Some(image) = image.as_ref().filter(|image| !images.iter().any(|known| known.name == image.value)) {
        let help = match nearest(image.value, images.iter().map(|known| known.name.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add `[image.{}]`", image.value),
        };
        problems.add_with_help(image.at, format!("there is no image `{}`", image.value), help);
    }
    let with = carried_layers(&mut section, &None, mentions);
    let modules = section.strings("imports").into_iter().filter_map(|module| {
        let what = format!("the module `{}`", module.value.escape_debug());
        checked(&what, module.value, module.at, name::python_module, problems).map(str::to_owned)
    });
    let imports: Vec<String> = modules.collect();
    let command = run::command(&mut section, problems).unwrap_or_default();
    if command.is_empty() && imports.is_empty() && problems.is_empty() {
        let help = "add `command = [\"PROGRAM\"]` or `imports = [\"MODULE\"]`";
        problems.add_with_help(section.at, "the test tries nothing", help);
    }
    let expect = section.strings("expect").iter().map(|text| text.value.to_owned()).collect();
    let (env, time_limit) = (run::environment(&mut section, problems), run::time_limit(&mut section, problems));
    section.finish();
    let (name, image) = (named?.to_owned(), image?.value.to_owned());
    Some((Test { name, image, with, imports, command, env, expect, time_limit }, &value.at))
}
