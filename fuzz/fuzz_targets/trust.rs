//! Any bytes as a trust file, and as an envelope around one.
#![no_main]

use gap_format::{
    dsse::{Envelope, TRUST_PAYLOAD},
    trust::{Clock, Trust},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(trust) = Trust::parse(bytes) {
        // What no key of the file signed can never follow it.
        assert!(trust.successor(bytes, Clock::AlreadyAccepted).is_err());
    }
    if let Ok(envelope) = Envelope::decode(bytes, TRUST_PAYLOAD) {
        assert_eq!(envelope.encode().as_deref(), Ok(bytes));
    }
});
