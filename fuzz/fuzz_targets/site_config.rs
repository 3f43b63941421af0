//! Any text as a site configuration.
#![no_main]

use gap_handover::SiteConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = SiteConfig::parse(text);
});
