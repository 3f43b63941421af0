//! `gapctl promote` and `gapctl promotions`.

use super::{
    Outcome, Session,
    file::{List, Page},
    show,
};
use crate::client::Request;
use clap::Args;
use serde::Deserialize;
use serde_json::json;

/// The resource.
const PROMOTIONS: [&str; 3] = ["v1", "appliance", "promotions"];

/// What `promote` is told.
#[derive(Debug, Args)]
pub struct Promote {
    /// The model
    model: String,
    /// The stable name that it gets
    name: String,
    /// The job that evaluated it (`gapctl job create eval`)
    #[arg(long, short, value_name = "JOB")]
    evaluation: Option<String>,
    /// Why it is promoted although it is not good enough, or was not evaluated; needs an admin's token, and is recorded
    #[arg(long = "override", value_name = "REASON")]
    reason: Option<String>,
}

/// What `promotions` is told.
#[derive(Debug, Args)]
pub struct Promotions {
    /// Only of this stable name
    name: Option<String>,
    #[command(flatten)]
    page: Page,
}

#[derive(Debug, Clone, Deserialize)]
struct Promotion {
    name: String,
    model: String,
    evaluation: Option<String>,
    findings: Vec<Finding>,
    override_reason: Option<String>,
    promoted_by: String,
    created_at: i64,
}

#[derive(Debug, Clone, Deserialize)]
struct Finding {
    metric: String,
    comparison: String,
    bound: f64,
    value: Option<f64>,
    is_met: bool,
}

impl Finding {
    fn line(&self) -> String {
        let value = self.value.map_or_else(|| "not measured".to_owned(), |value| value.to_string());
        let verdict = if self.is_met { "met" } else { "NOT MET" };
        format!("{} {} {}: {value}, {verdict}", self.metric, self.comparison, self.bound)
    }
}

pub fn promote(session: &Session, args: &Promote) -> Outcome {
    let wanted = json!({
        "name": args.name, "model": args.model, "evaluation": args.evaluation, "override_reason": args.reason,
    });
    session.show(Request::post_json(&PROMOTIONS, &wanted)?, |promotion: Promotion| {
        show::line(format!("{} stands for {}", show::plain(promotion.name), show::plain(promotion.model)));
        for finding in &promotion.findings {
            show::line(format!("  {}", show::plain(finding.line())));
        }
    })
}

pub fn list(session: &Session, args: &Promotions) -> Outcome {
    let [limit, after] = args.page.query();
    let request = Request::get(&PROMOTIONS).query(&[("name", args.name.clone()), limit, after]);
    session.show(request, |list: List<Promotion>| {
        let row = |promotion: &Promotion| {
            let promotion = promotion.clone();
            let grounds = match (promotion.override_reason, promotion.evaluation) {
                (Some(reason), _) => format!("override: {reason}"),
                (None, evaluation) => evaluation.unwrap_or_default(),
            };
            [promotion.name, promotion.model, show::time(promotion.created_at), promotion.promoted_by, grounds]
        };
        show::table(["NAME", "MODEL", "SINCE", "BY", "GROUNDS"], &list.data.iter().map(row).collect::<Vec<_>>());
    })
}
