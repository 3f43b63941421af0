//! Claiming the first admin's token with the code that the console shows.

use super::{
    Api, ApiError, Given, Peer,
    access::{NAME, checked_name, made},
    blocking, recording,
};
use crate::{
    access::{Caller, ClaimError, Role},
    console,
};
use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
};
use gap_jobs::dispatcher::now;
use schemars::JsonSchema;
use serde::Deserialize;
use std::{sync::Arc, time::Instant};

/// What the audit log calls who has no token yet.
const CLAIMANT: &str = "claim";
/// What is recorded.
const WHAT: &str = "POST /v1/appliance/claim";

/// The code, and a name for the token.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimAppliance {
    /// As the console shows it; capitals and what is between its groups do not matter.
    code: String,
    /// For people, and in the audit log; `first` when absent.
    #[serde(default = "first")]
    #[schemars(regex(pattern = NAME))]
    name: String,
}

fn first() -> String {
    "first".to_owned()
}

impl From<ClaimError> for ApiError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Tokens(error) => error.into(),
            ClaimError::Claimed => Self::Conflict(error.to_string()),
            ClaimError::WrongCode => Self::WrongCode,
        }
    }
}

pub(super) async fn claim(
    State(api): State<Arc<Api>>,
    Extension(Peer(address)): Extension<Peer>,
    Given(request): Given<ClaimAppliance>,
) -> Result<Response, ApiError> {
    let name = checked_name(request.name)?;
    let began = Instant::now();
    if let Some(wait) = api.lockout.wait(address, began) {
        return Err(ApiError::LockedOut(wait));
    }
    let claimant = Caller { id: CLAIMANT.to_owned(), name: CLAIMANT.to_owned(), role: Role::Admin };
    let response = match api.access.check_code(&request.code) {
        Ok(()) => {
            api.record(&claimant, address, WHAT, "asked").await?;
            let here = Arc::clone(&api);
            let claimed = blocking(move || Ok(here.access.claim(&request.code, name, now())?)).await;
            claimed.map(|(token, row)| {
                console::say(format_args!("claimed from {address}: `{}` is the first admin", row.name));
                made(row, token)
            })
        }
        Err(error @ (ClaimError::WrongCode | ClaimError::Claimed)) => {
            // Nobody without a token fills the log: who was refused often is not looked at for a while.
            api.lockout.wrong(address, began);
            Err(error.into())
        }
        // Nobody is refused: it is too early.
        Err(error @ ClaimError::Tokens(_)) => return Err(error.into()),
    };
    let response = response.into_response();
    if let Some(outcome) = recording::outcome(&response) {
        drop(api.record(&claimant, address, WHAT, &outcome).await);
    }
    Ok(response)
}
