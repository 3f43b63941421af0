//! Tokens and the audit log.

use super::{
    Api, ApiError, Asked, Given,
    answers::{List, limit, seconds},
    blocking,
    files::Deleted,
    recording::Made,
};
use crate::access::{NewToken, Role, TokenRow, TokensError, audit::Record};
use axum::{
    Json,
    extract::{Path, State},
};
use gap_jobs::dispatcher::now;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Longest name of a token, in characters.
const MAX_NAME: usize = 64;
/// What [`checked_name`] takes, as a regular expression.
pub(super) const NAME: &str = r"^[^\u0000-\u001f\u007f-\u009f]{1,64}$";

/// A token to make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// For people, and in the audit log.
    #[schemars(regex(pattern = NAME))]
    name: String,
    role: Role,
    /// Seconds until it is not taken any more; without end when absent.
    #[serde(default)]
    expires_in: Option<u64>,
}

/// A token that was made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TokenView {
    id: String,
    /// `appliance.token`.
    object: &'static str,
    name: String,
    role: Role,
    created_at: i64,
    expires_at: Option<i64>,
    /// The token itself, in the answer that makes it and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl TokenView {
    fn new(row: TokenRow, token: Option<String>) -> Self {
        Self {
            id: row.id,
            object: "appliance.token",
            name: row.name,
            role: row.role,
            created_at: seconds(row.created_at),
            expires_at: row.expires_at.map(seconds),
            token,
        }
    }
}

impl From<TokensError> for ApiError {
    fn from(error: TokensError) -> Self {
        match error {
            TokensError::TooMany => Self::Conflict(error.to_string()),
            TokensError::NoDatabase => Self::NotReady(error.to_string()),
            TokensError::Database(_) | TokensError::Random(_) => {
                crate::console::say(&error);
                Self::Internal
            }
        }
    }
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<List<TokenView>>, ApiError> {
    let rows = api.access.list();
    let most = rows.len();
    let views = rows.into_iter().map(|row| TokenView::new(row, None)).collect();
    Ok(Json(List::page(views, most, |view: &TokenView| view.id.clone())))
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Given(request): Given<CreateToken>,
) -> Result<Made<TokenView>, ApiError> {
    let name = checked_name(request.name)?;
    let now = now();
    let lifetime = |seconds: u64| i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
    let expires_at = request.expires_in.map(|seconds| now.saturating_add(lifetime(seconds)));
    blocking(move || {
        let (token, row) = api.access.make(NewToken { name, role: request.role, expires_at }, now)?;
        Ok(made(row, token))
    })
    .await
}

/// The answer with a token, which the audit log does not get.
pub(super) fn made(row: TokenRow, token: String) -> Made<TokenView> {
    let name = format!("{} ({}, {})", row.id, row.role, row.name);
    Made::new(name, TokenView::new(row, Some(token)))
}

/// A name for a token.
pub(super) fn checked_name(name: String) -> Result<String, ApiError> {
    if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        let message = format!("a name is 1 to {MAX_NAME} characters without control characters");
        return Err(ApiError::invalid("name", message));
    }
    Ok(name)
}

pub(super) async fn revoke(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    blocking(move || {
        if api.access.revoke(&id)? {
            Ok(Json(Deleted::new(id, "appliance.token")))
        } else {
            Err(ApiError::not_found("token", id))
        }
    })
    .await
}

/// Which records.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Number of the last record of the page before.
    after: Option<u64>,
    /// Most records, 1 to 1000; 20 when absent.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

/// Records of the audit log, oldest first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AuditView {
    /// `list`.
    object: &'static str,
    data: Vec<Record>,
    has_more: bool,
}

pub(super) async fn audit(
    State(api): State<Arc<Api>>,
    Asked(query): Asked<AuditQuery>,
) -> Result<Json<AuditView>, ApiError> {
    blocking(move || {
        let most = limit(query.limit)?;
        let read = api.audit.read(query.after.unwrap_or(0), most.saturating_add(1));
        let mut data = read.map_err(|error| {
            crate::console::say(&error);
            ApiError::Internal
        })?;
        let has_more = data.len() > most;
        data.truncate(most);
        Ok(Json(AuditView { object: "list", data, has_more }))
    })
    .await
}
