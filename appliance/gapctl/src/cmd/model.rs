//! `gapctl model`.

use super::{Outcome, Session, file::List, job, show};
use crate::client::Request;
use clap::Subcommand;
use serde::Deserialize;
use serde_json::json;

/// What is done with models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// List models of the release and those that were fine-tuned here
    List,
    /// Show one
    Show {
        /// Its name
        name: String,
    },
    /// Serve it, so that it answers
    Serve {
        /// Its name
        name: String,
        /// The declared job, where there are several for this model
        #[arg(long)]
        job: Option<String>,
        #[command(flatten)]
        wishes: job::Wishes,
        /// Wait until it answers; exits with 4 when it fails
        #[arg(long, short)]
        wait: bool,
    },
}

#[derive(Debug, Clone, Deserialize)]
struct Model {
    id: String,
    created: i64,
    owned_by: String,
    parent: Option<String>,
    is_served: bool,
}

pub fn run(session: &Session, command: ModelCommand) -> Outcome {
    match command {
        ModelCommand::List => session.show(Request::get(&["v1", "models"]), |list: List<Model>| {
            let row = |model: &Model| {
                let model = model.clone();
                let served = if model.is_served { "yes" } else { "no" };
                [model.id, served.to_owned(), model.owned_by, model.parent.unwrap_or_default()]
            };
            show::table(["NAME", "ANSWERS", "FROM", "PARENT"], &list.data.iter().map(row).collect::<Vec<_>>());
        }),
        ModelCommand::Show { name } => session.show(Request::get(&["v1", "models", &name]), |model: Model| {
            show::values(&[
                ("name", model.id),
                ("answers", if model.is_served { "yes" } else { "no" }.to_owned()),
                ("from", model.owned_by),
                ("parent", model.parent.unwrap_or_default()),
                ("made", if model.created == 0 { String::new() } else { show::time(model.created) }),
            ]);
        }),
        ModelCommand::Serve { name, job, wishes, wait } => {
            let mut wanted = wishes.to_map();
            wanted.insert("kind".to_owned(), json!("serve"));
            wanted.insert("model".to_owned(), json!(name));
            if let Some(job) = job {
                wanted.insert("job".to_owned(), json!(job));
            }
            job::start(session, &wanted.into(), wait)
        }
    }
}
