//! Chat templates, rendered as Transformers renders them.
//!
//! One thing is left out on purpose: `strftime_now`. A prompt that changes with the clock makes answers that cannot be
//! repeated; templates that know it take a fixed date where it is not defined.

use crate::{
    inference::{LoadError, MAX_CONFIG, read_bounded, read_json},
    python_json::to_json,
};
use minijinja::{Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

const NAME: &str = "chat";
/// Steps of a template after which it is stopped.
const FUEL: u64 = 50_000_000;

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    special_tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Reads the template of a model's directory, if it has one: `chat_template.jinja`, or what `tokenizer_config.json` says.
    ///
    /// # Errors
    /// Where a file cannot be read, or the template is not valid.
    pub fn read(directory: &Path) -> Result<Option<Self>, LoadError> {
        let config = directory.join("tokenizer_config.json");
        let config: BTreeMap<String, serde_json::Value> =
            if config.exists() { read_json(&config, MAX_CONFIG)? } else { BTreeMap::new() };
        let own = directory.join("chat_template.jinja");
        let (path, source) = if own.exists() {
            let text = String::from_utf8(read_bounded(&own, MAX_CONFIG)?);
            let text =
                text.map_err(|_| LoadError::Damaged { path: own.clone(), reason: "it is not UTF-8".to_owned() })?;
            (own, text)
        } else {
            match config.get("chat_template").and_then(default_template) {
                Some(text) => (directory.join("tokenizer_config.json"), text.to_owned()),
                None => return Ok(None),
            }
        };
        let text = |value: &serde_json::Value| {
            value.as_str().or_else(|| value.get("content")?.as_str()).map(ToOwned::to_owned)
        };
        let special_tokens = config
            .iter()
            .filter(|(name, _)| name.ends_with("_token"))
            .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
            .collect();
        Self::new(&source, special_tokens)
            .map(Some)
            .map_err(|error| LoadError::Damaged { path, reason: format!("the chat template is not valid: {error:#}") })
    }

    /// From its source and the special tokens that it may name (`bos_token`, `eos_token`, …).
    ///
    /// # Errors
    /// Where it is not valid.
    pub fn new(source: &str, special_tokens: BTreeMap<String, String>) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", to_json);
        environment.add_template_owned(NAME, without_generation_blocks(source))?;
        Ok(Self { environment, source: source.to_owned(), special_tokens })
    }

    /// The template as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// A special token by the name that templates use.
    pub fn special_token(&self, name: &str) -> Option<&str> {
        self.special_tokens.get(name).map(String::as_str)
    }

    /// Renders messages. `more` are further variables, which some templates know.
    ///
    /// # Errors
    /// What the template itself finds wrong with the messages, for instance that roles do not alternate.
    pub fn render<M: Serialize, T: Serialize>(
        &self,
        messages: &M,
        tools: Option<&T>,
        add_generation_prompt: bool,
        more: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String, Error> {
        let tools = tools.map(|tools| Value::from(Serde(tools)));
        let known = context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt => add_generation_prompt,
            tools => tools.unwrap_or(Value::from(())),
            documents => Value::from(()),
        };
        let special = Value::from(Serde(&self.special_tokens));
        let more = Value::from(Serde(more));
        self.environment.get_template(NAME)?.render(context! { ..known, ..more, ..special })
    }
}

/// A template by itself, or the one called default of several.
fn default_template(value: &serde_json::Value) -> Option<&str> {
    let named = |item: &'_ serde_json::Value| item.get("name").and_then(serde_json::Value::as_str) == Some("default");
    match value {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Array(list) => list.iter().find(|item| named(item))?.get("template")?.as_str(),
        _ => None,
    }
}

/// `{% generation %}` marks what a model is trained on and renders to nothing.
fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, block) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = block.find("%}").map(|end| end + 2) else { break };
        let (tag, after) = block.split_at(end);
        let word = tag.trim_start_matches("{%").trim_end_matches("%}").trim_matches(['-', '+']).trim();
        if ["generation", "endgeneration"].contains(&word) {
            // A comment trims as the block did.
            out.push_str(&tag.replace("{%", "{#").replace("%}", "#}"));
        } else {
            out.push_str(tag);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    fn render(source: &str, messages: &serde_json::Value) -> Result<String, Error> {
        let special = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
        ChatTemplate::new(source, special)?.render(messages, None::<&()>, true, &Map::new())
    }

    #[test]
    fn blocks_take_their_line_with_them() {
        let source = "{{ bos_token }}\n{% for m in messages %}\n  {% if m.role == 'user' %}\nU:{{ m['content'].strip() }}\n  {% endif %}\n{% endfor %}\n{% if add_generation_prompt %}A:{% endif %}";
        let found = render(source, &json!([{"role": "user", "content": " hi "}])).unwrap();
        assert_eq!(found, "<s>\nU:hi\nA:");
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let found = render("{{ messages | tojson }}", &json!([{"b": "<é>", "a": [1, 2.5, null, true]}])).unwrap();
        assert_eq!(found, r#"[{"b": "<é>", "a": [1, 2.5, null, true]}]"#);
    }

    #[test]
    fn a_templates_own_complaint_is_told() {
        let error = render("{{ raise_exception('roles must alternate') }}", &json!([])).unwrap_err();
        assert!(error.to_string().contains("roles must alternate"));
    }

    #[test]
    fn an_endless_template_is_stopped() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert_eq!(render(source, &json!([])).unwrap_err().kind(), ErrorKind::OutOfFuel);
    }

    #[test]
    fn generation_blocks_render_to_their_content() {
        let source = "a {%- generation -%} b {% endgeneration %}c";
        assert_eq!(render(source, &json!([])).unwrap(), "ab c");
    }
}
