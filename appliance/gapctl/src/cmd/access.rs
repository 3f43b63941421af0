//! `gapctl token` and `gapctl audit`.

use super::{Failure, Outcome, Session, file::List, show};
use crate::client::Request;
use clap::{Args, Subcommand, ValueEnum};
use gap_format::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The resource.
const TOKENS: [&str; 3] = ["v1", "appliance", "tokens"];
/// Records of a page.
const PAGE: usize = 1000;

/// What is done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make one; it is shown once
    Create {
        /// For people, and in the record of changes
        name: String,
        /// What it may do
        #[arg(long, value_enum)]
        role: Role,
        /// Days until it is not taken any more; without end when absent
        #[arg(long, value_name = "DAYS")]
        days: Option<u64>,
    },
    /// List them
    List,
    /// Take one back
    Revoke {
        /// Its id
        id: String,
    },
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks, and asks models
    Viewer,
    /// Files and jobs as well
    Operator,
    /// Everything
    Admin,
}

#[derive(Debug, Clone, Deserialize)]
struct Token {
    id: String,
    name: String,
    role: String,
    created_at: i64,
    expires_at: Option<i64>,
    token: Option<String>,
}

pub fn run(session: &Session, command: TokenCommand) -> Outcome {
    match command {
        TokenCommand::Create { name, role, days } => {
            let expires_in = days.map(|days| days.saturating_mul(24 * 3600));
            let wanted = json!({"name": name, "role": role, "expires_in": expires_in});
            session.show(Request::post_json(&TOKENS, &wanted)?, |token: Token| {
                show::values(&[
                    ("id", token.id),
                    ("role", token.role),
                    ("until", token.expires_at.map(show::time).unwrap_or_default()),
                    ("token", token.token.unwrap_or_default()),
                ]);
            })
        }
        TokenCommand::List => session.show(Request::get(&TOKENS), |list: List<Token>| {
            let row = |token: &Token| {
                let token = token.clone();
                let until = token.expires_at.map_or_else(|| "for ever".to_owned(), show::time);
                [token.id, token.role, show::time(token.created_at), until, token.name]
            };
            show::table(["ID", "ROLE", "MADE", "UNTIL", "NAME"], &list.data.iter().map(row).collect::<Vec<_>>());
        }),
        TokenCommand::Revoke { id } => {
            let path = [TOKENS.as_slice(), &[&id]].concat();
            session.show(Request::delete(&path), |_: Value| show::line(format!("revoked {id}")))
        }
    }
}

/// What of the record is shown.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only what comes after this number
    #[arg(long, default_value_t = 0)]
    after: u64,
}

/// Who did what. The order of the fields is that of the line whose hash is in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    at: i64,
    who: String,
    role: String,
    from: String,
    what: String,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    number: u64,
    entry: Entry,
    previous: String,
    hash: String,
}

impl Record {
    /// SHA-256 of the line with an empty hash, as docs/appliance.md specifies it.
    fn expected(&self) -> Option<String> {
        let line = serde_json::to_vec(&Self { hash: String::new(), ..self.clone() }).ok()?;
        Some(Digest::of(&line).to_hex())
    }
}

/// Shows the whole record and checks that each entry follows from the one before.
pub fn audit(session: &Session, args: &AuditArgs) -> Outcome {
    let (mut after, mut last) = (args.after, None::<Record>);
    loop {
        let query = [("after", Some(after.to_string())), ("limit", Some(PAGE.to_string()))];
        let answer = session.client.ask(Request::get(&["v1", "appliance", "audit"]).query(&query))?;
        let page: List<Record> = answer.read()?;
        if session.json {
            session.print(&answer)?;
        }
        for record in page.data {
            if !session.json {
                let entry = &record.entry;
                let line = format!("{} ({}) {} {}: {}", entry.who, entry.role, entry.from, entry.what, entry.outcome);
                let at = show::time(entry.at.div_euclid(1000));
                show::line(format!("{}  {at}  {}", record.number, show::plain(line)));
            }
            check(last.as_ref(), &record)?;
            after = record.number;
            last = Some(record);
        }
        if !page.has_more {
            break;
        }
    }
    if let (Some(record), false) = (&last, session.json) {
        show::line(format!("\nwhole up to number {}, hash {}", record.number, record.hash));
    }
    Ok(())
}

fn check(last: Option<&Record>, record: &Record) -> Outcome {
    let follows = last.is_none_or(|last| record.previous == last.hash && record.number == last.number + 1);
    if follows && record.expected().as_deref() == Some(record.hash.as_str()) {
        return Ok(());
    }
    Err(Failure::failed(
        format!("record {} does not follow from the one before", record.number),
        "the record was changed, or records are missing: do not rely on it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, previous: &str) -> Record {
        let entry = Entry {
            at: 1,
            who: "first".into(),
            role: "admin".into(),
            from: "192.0.2.1".into(),
            what: "POST /v1/files".into(),
            outcome: "asked".into(),
        };
        let mut record = Record { number, entry, previous: previous.to_owned(), hash: String::new() };
        record.hash = record.expected().unwrap();
        record
    }

    #[test]
    fn a_changed_or_missing_record_is_noticed() {
        let one = record(1, "");
        let two = record(2, &one.hash);
        assert!(check(None, &one).is_ok() && check(Some(&one), &two).is_ok());
        let mut changed = two.clone();
        changed.entry.who = "somebody".into();
        assert!(check(Some(&one), &changed).is_err());
        assert!(check(Some(&one), &record(3, &one.hash)).is_err());
        assert!(check(Some(&one), &record(2, "")).is_err());
    }
}
