//! A model as judge.

use super::example::{Example, Prompt};
use serde_json::json;

/// The longest judgement, in tokens.
pub const LONGEST: usize = 64;

/// What a judge is asked.
const PROMPT: &str = "Rate this response on a scale of 1-5:
- Accuracy: Does it contain correct information?
- Completeness: Does it fully answer the question?
- Format: Does it follow the required structure?

Question: {question}
Response: {response}

Reply with three lines and nothing else:
Accuracy: <1-5>
Completeness: <1-5>
Format: <1-5>";

/// What is rated, in this order.
pub const ASPECTS: [&str; 3] = ["accuracy", "completeness", "format"];

/// The question to the judge about an answer.
#[must_use]
pub fn ask(example: &Example, answer: &str) -> Example {
    // The response goes in last: what stands in a question is not taken for a place to put it.
    let (before, after) = PROMPT.split_once("{response}").unwrap_or((PROMPT, ""));
    let before = before.replace("{question}", example.question());
    let prompt = format!("{before}{answer}{after}");
    let turns = vec![json!({"role": "user", "content": prompt})];
    Example { id: example.id.clone(), prompt: Prompt::Turns { turns, tools: None }, reference: None }
}

/// The ratings in a judgement, in the order of [`ASPECTS`]; none where one is missing or not from 1 to 5.
#[must_use]
pub fn ratings(judgement: &str) -> Option<[f64; 3]> {
    let rating = |aspect: &str| {
        let line = judgement.lines().map(|line| line.trim_start_matches(['-', '*', ' ']).to_lowercase());
        let rest = line.filter_map(|line| line.strip_prefix(aspect).map(str::to_owned)).next_back()?;
        let digit = rest.trim_start_matches([':', '*', ' ', '=']).chars().next()?.to_digit(10)?;
        (1..=5).contains(&digit).then(|| f64::from(digit))
    };
    let [accuracy, completeness, format] = ASPECTS.map(rating);
    Some([accuracy?, completeness?, format?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratings_are_found_however_the_judge_writes_them() {
        assert_eq!(ratings("Accuracy: 5\nCompleteness: 4\nFormat: 1"), Some([5., 4., 1.]));
        assert_eq!(ratings("Sure!\n- **Accuracy**: 3/5\n- completeness = 2\n* Format: 4."), Some([3., 2., 4.]));
        assert_eq!(ratings("Accuracy: 5\nFormat: 1"), None);
        assert_eq!(ratings("Accuracy: 7\nCompleteness: 4\nFormat: 1"), None);
        assert_eq!(ratings(""), None);
    }

    #[test]
    fn question_and_response_stand_where_they_belong() {
        let prompt = Prompt::Text("why {response}?".to_owned());
        let example = Example { id: "1".to_owned(), prompt, reference: None };
        let asked = ask(&example, "because {question}");
        assert!(asked.question().contains("Question: why {response}?\nResponse: because {question}\n\nReply"));
    }
}
