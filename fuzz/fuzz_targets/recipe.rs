//! Any text as a recipe: it is taken or refused, and every problem can be pointed at.
#![no_main]

use gapimage::recipe::Recipe;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    // There is no such directory, so definitions that the text asks for are not found.
    match Recipe::parse(text.to_owned(), Path::new("/nonexistent/recipe.toml")) {
        Ok(recipe) => assert!(!recipe.placed_layers().is_empty()),
        Err(errors) => {
            assert!(!errors.problems().is_empty());
            assert!(errors.problems().iter().all(|problem| problem.line >= 1 && problem.column >= 1));
        }
    }
});
