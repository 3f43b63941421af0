//! Claiming the first admin's token with the code that the console shows.

use super::{
    Api, ApiError, Given, Peer,
    access::{NAME, TokenView, checked_name},
    blocking,
};
use crate::{
    access::{Caller, ClaimError, Role},
    console,
};
use axum::{Extension, Json, extract::State};
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
) -> Result<Json<TokenView>, ApiError> {
    let name = checked_name(request.name)?;
    let began = Instant::now();
    if let Some(wait) = api.lockout.wait(address, began) {
        return Err(ApiError::LockedOut(wait));
    }
    let claimant = Caller { id: CLAIMANT.to_owned(), name: CLAIMANT.to_owned(), role: Role::Admin };
    if let Err(error) = api.access.check_code(&request.code) {
        if matches!(error, ClaimError::WrongCode) {
            api.lockout.wrong(address, began);
            api.record(&claimant, address, WHAT, "refused 403").await?;
        }
        return Err(error.into());
    }
    api.record(&claimant, address, WHAT, "asked").await?;
    let here = Arc::clone(&api);
    let (token, row) = blocking(move || Ok(here.access.claim(&request.code, name, now())?)).await?;
    console::say(format_args!("claimed from {address}: `{}` is the first admin", row.name));
    Ok(Json(TokenView::new(row, Some(token))))
}
