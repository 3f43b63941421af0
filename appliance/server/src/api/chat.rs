//! `POST /v1/chat/completions`.

use super::{
    Served,
    body::{Body, Fields},
    error::ApiError,
    generation::{Answer, Answers, Common, Envelope, Names, StreamOptions, Usage, Wanted, event, tokens},
    logprobs,
    messages::{CallKind, ChatMessage, for_template},
    stream::respond,
    tools::{Call, CallReader, Dialect, Tool},
};
use crate::{
    catalogue::Generator,
    engine::{Delta, Event, Shape},
};
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value, json};

/// Most tools, and the longest description of all of them in bytes.
const MAX_TOOLS: usize = 128;
/// Most messages.
const MAX_MESSAGES: usize = 4096;

/// The request.
#[derive(Debug, Deserialize)]
pub struct ChatRequest {
    #[serde(flatten)]
    common: Common,
    messages: Vec<ChatMessage>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    logprobs: Option<bool>,
    top_logprobs: Option<u32>,
    #[serde(default, deserialize_with = "response_format")]
    response_format: Option<ResponseFormat>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<ToolChoice>,
    parallel_tool_calls: Option<bool>,
    chat_template_kwargs: Option<Map<String, Value>>,
    #[serde(rename = "store")]
    _store: Option<bool>,
    #[serde(rename = "metadata")]
    _metadata: Option<std::collections::BTreeMap<String, String>>,
}

impl Fields for ChatRequest {
    const KNOWN: &'static [&'static [&'static str]] = &[
        Common::KNOWN,
        &[
            "messages",
            "max_tokens",
            "max_completion_tokens",
            "logprobs",
            "top_logprobs",
            "response_format",
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "chat_template_kwargs",
            "store",
            "metadata",
        ],
    ];
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum ResponseFormat {
    Text {},
    JsonObject {},
    JsonSchema { json_schema: NamedSchema },
}

/// A format whose type is a word: serde takes its number as well.
fn response_format<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ResponseFormat>, D::Error> {
    let Some(value) = Option::<Value>::deserialize(from)? else { return Ok(None) };
    if value.get("type").is_some_and(|kind| !kind.is_string()) {
        return Err(D::Error::custom("the `type` of `response_format` is no text"));
    }
    ResponseFormat::deserialize(value).map(Some).map_err(D::Error::custom)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedSchema {
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "description")]
    _description: Option<String>,
    schema: Map<String, Value>,
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ToolChoice {
    Mode(ToolMode),
    Named(NamedTool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ToolMode {
    None,
    Auto,
    Required,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedTool {
    #[serde(rename = "type")]
    _type: CallKind,
    function: ToolName,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolName {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolSpec {
    #[serde(rename = "type")]
    _type: CallKind,
    function: FunctionSpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FunctionSpec {
    name: String,
    #[serde(rename = "description")]
    _description: Option<String>,
    parameters: Option<Map<String, Value>>,
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

/// Answers a chat.
pub async fn chat(State(served): State<Served>, Body(request, held): Body<ChatRequest>) -> Result<Response, ApiError> {
    let generator = served.catalogue.generator(&request.common.model)?;
    let streaming = request.common.streaming()?;
    let places = generator.engine.reserve(request.common.answers()?)?;
    let tooling = request.tooling(generator)?;
    let prepare = || {
        let wanted = request.wanted(generator, tooling.as_ref())?;
        request.common.submit(generator, wanted, places)
    };
    let answers = served.preparing.run(prepare).await?;
    let head = Head {
        envelope: Envelope::new("chatcmpl-", &request.common, generator),
        logprobs: request.logprobs.unwrap_or_default(),
        single: request.single(),
        dialect: tooling.map(|tooling| tooling.dialect),
    };
    // The answer may take long, and needs nothing of them.
    drop((request, held));
    match streaming {
        Some(options) => Ok(head.stream(answers, options)),
        None => head.whole(answers).await,
    }
}

/// The tools of a request and how the model calls them.
struct Tooling {
    dialect: Dialect,
    tools: Vec<Tool>,
    required: bool,
}

impl ChatRequest {
    fn tooling(&self, generator: &Generator) -> Result<Option<Tooling>, ApiError> {
        let specs = self.tools.as_deref().unwrap_or_default();
        let choice = self.tool_choice.as_ref();
        if specs.is_empty() {
            return match choice {
                None | Some(ToolChoice::Mode(ToolMode::None | ToolMode::Auto)) => Ok(None),
                Some(_) => Err(ApiError::invalid("tool_choice", "a tool is wanted, but there are no `tools`")),
            };
        }
        if specs.len() > MAX_TOOLS {
            return Err(ApiError::invalid("tools", format!("at most {MAX_TOOLS} tools are taken")));
        }
        let read = |spec: &Value| match ToolSpec::deserialize(spec) {
            Ok(ToolSpec { function, .. }) => Ok(Tool {
                name: function.name,
                parameters: function.parameters.map_or_else(|| json!({"type": "object"}), Value::Object),
            }),
            Err(error) => Err(ApiError::invalid("tools", format!("a tool is not valid: {error}"))),
        };
        let mut tools = specs.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let required = match choice {
            None | Some(ToolChoice::Mode(ToolMode::Auto)) => false,
            Some(ToolChoice::Mode(ToolMode::None)) => return Ok(None),
            Some(ToolChoice::Mode(ToolMode::Required)) => true,
            Some(ToolChoice::Named(NamedTool { function, .. })) => {
                tools.retain(|tool| tool.name == function.name);
                true
            }
        };
        if tools.is_empty() {
            return Err(ApiError::invalid("tool_choice", "it names none of the `tools`"));
        }
        let dialect = generator.template.as_ref().and_then(|template| Dialect::of_template(template.source()));
        let dialect = dialect.ok_or_else(|| ApiError::invalid("tools", "this model's chat template knows no tools"))?;
        Ok(Some(Tooling { dialect, tools, required }))
    }

    fn wanted(&self, generator: &Generator, tooling: Option<&Tooling>) -> Result<Wanted, ApiError> {
        if self.messages.is_empty() || self.messages.len() > MAX_MESSAGES {
            return Err(ApiError::invalid("messages", format!("there must be 1 to {MAX_MESSAGES} messages")));
        }
        let template = generator
            .template
            .as_ref()
            .ok_or_else(|| ApiError::invalid("model", "this model has no chat template; use /v1/completions"))?;
        let messages = self.messages.iter().map(for_template).collect::<Result<Vec<_>, _>>()?;
        let tools = tooling.and(self.tools.as_ref());
        let more = self.chat_template_kwargs.clone().unwrap_or_default();
        let text = template.render(&messages, tools, true, &more);
        let text = text.map_err(|error| {
            ApiError::invalid("messages", format!("the model's chat template refuses these messages: {error}"))
        })?;
        let prompt = tokens(generator, &text, false, "messages")?;
        if let (Some(_), Some(_)) = (self.max_tokens, self.max_completion_tokens) {
            return Err(ApiError::invalid("max_tokens", "give `max_tokens` or `max_completion_tokens`, not both"));
        }
        if self.top_logprobs.is_some() && self.logprobs != Some(true) {
            return Err(ApiError::invalid("top_logprobs", "`top_logprobs` need `logprobs: true`"));
        }
        Ok(Wanted {
            prompt,
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
            logprobs: (self.logprobs == Some(true)).then(|| self.top_logprobs.unwrap_or_default()),
            shape: self.shape(tooling, generator)?,
            shown: tooling.map(|tooling| tooling.dialect.shown(generator.engine.codec())).unwrap_or_default(),
            continues: false,
            names: Names {
                prompt: "messages",
                max_tokens: if self.max_completion_tokens.is_some() { "max_completion_tokens" } else { "max_tokens" },
                logprobs: "top_logprobs",
            },
        })
    }

    /// Whether an answer has one call at most.
    fn single(&self) -> bool {
        self.parallel_tool_calls == Some(false)
    }

    /// What the answer must follow, and the field that says so.
    fn shape(
        &self,
        tooling: Option<&Tooling>,
        generator: &Generator,
    ) -> Result<Option<(Shape, &'static str)>, ApiError> {
        let format = match &self.response_format {
            None | Some(ResponseFormat::Text {}) => None,
            Some(ResponseFormat::JsonObject {}) => Some(Shape::JsonObject),
            Some(ResponseFormat::JsonSchema { json_schema }) => {
                Some(Shape::JsonSchema(Value::Object(json_schema.schema.clone())))
            }
        };
        match (format, tooling.filter(|tooling| tooling.required)) {
            (Some(_), Some(_)) => {
                Err(ApiError::invalid("response_format", "an answer cannot be a required tool call and JSON as well"))
            }
            (format, None) => Ok(format.map(|shape| (shape, "response_format"))),
            (None, Some(Tooling { dialect, tools, .. })) => {
                Ok(Some((dialect.required(tools, self.single(), generator.engine.codec()), "tools")))
            }
        }
    }
}

/// What all pieces of an answer begin with.
#[derive(Clone)]
struct Head {
    envelope: Envelope,
    logprobs: bool,
    dialect: Option<Dialect>,
    /// Of several calls only the first counts.
    single: bool,
}

impl Head {
    async fn whole(self, answers: Answers) -> Result<Response, ApiError> {
        let prompt = answers.prompt;
        let answers = answers.collect().await?;
        let tokens = answers.iter().map(|answer| answer.tokens).sum();
        let choices: Vec<Value> =
            answers.into_iter().enumerate().map(|(index, answer)| self.choice(index, answer)).collect();
        let usage = Some(Usage::new(prompt, tokens));
        Ok(Json(self.envelope.body("chat.completion", &Value::Array(choices), usage)).into_response())
    }

    fn choice(&self, index: usize, answer: Answer) -> Value {
        let (text, calls) = match self.dialect {
            Some(dialect) => {
                let mut reader = CallReader::new(dialect, self.single);
                let text = reader.push(&answer.text);
                let (rest, calls) = reader.finish();
                (text + &rest, calls)
            }
            None => (answer.text, Vec::new()),
        };
        let word = answer.finish.map(|finish| if calls.is_empty() { finish.word() } else { "tool_calls" });
        let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { Value::String(text) };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if !calls.is_empty()
            && let Some(message) = message.as_object_mut()
        {
            message.insert("tool_calls".to_owned(), json!(calls));
        }
        json!({
            "index": index,
            "message": message,
            "logprobs": self.logprobs.then(|| logprobs::of_chat(&answer.logprobs)),
            "finish_reason": word,
        })
    }

    fn stream(self, answers: Answers, options: StreamOptions) -> Response {
        let prompt = answers.prompt;
        let count = answers.choices.len();
        let mut readers: Vec<_> =
            (0..count).map(|_| self.dialect.map(|dialect| CallReader::new(dialect, self.single))).collect();
        let (mut left, mut tokens) = (count, 0);
        let first = (0..count).map(|index| self.piece(index, json!({"role": "assistant", "content": ""}), None, None));
        let first: Vec<String> = first.collect();
        let pieces = answers.events().map(move |(index, happened)| {
            let reader = readers.get_mut(index).and_then(Option::as_mut);
            match happened {
                Event::More(Delta { text, logprobs: more }) => {
                    let text = reader.map_or_else(|| text.clone(), |reader| reader.push(&text));
                    let more = (self.logprobs && !more.is_empty()).then(|| logprobs::of_chat(&more));
                    if text.is_empty() && more.is_none() {
                        return String::new();
                    }
                    self.piece(index, json!({"content": text}), more, None)
                }
                Event::End { finish, tokens: more } => {
                    left -= 1;
                    tokens += more;
                    let reader = readers.get_mut(index).and_then(Option::take);
                    let (rest, calls) = reader.map(CallReader::finish).unwrap_or_default();
                    let word = if calls.is_empty() { finish.word() } else { "tool_calls" };
                    let mut out = self.rest(index, &rest, &calls);
                    out += &self.piece(index, json!({}), None, Some(word));
                    if left == 0 && options.include_usage {
                        out += &self.usage(Usage::new(prompt, tokens));
                    }
                    out
                }
                Event::Failed(reason) => event(&json!({"error": ApiError::Internal(reason).body()})),
            }
        });
        let pieces = pieces.filter(|piece| futures::future::ready(!piece.is_empty()));
        respond(futures::stream::iter(first).chain(pieces))
    }

    /// What was held back, and the calls.
    fn rest(&self, index: usize, text: &str, calls: &[Call]) -> String {
        let mut out = String::new();
        if !text.is_empty() {
            out += &self.piece(index, json!({"content": text}), None, None);
        }
        for (number, call) in calls.iter().enumerate() {
            let mut call = json!(call);
            if let Some(call) = call.as_object_mut() {
                call.insert("index".to_owned(), json!(number));
            }
            out += &self.piece(index, json!({"tool_calls": [call]}), None, None);
        }
        out
    }

    fn piece(&self, index: usize, delta: Value, logprobs: Option<Value>, finish: Option<&str>) -> String {
        let choice = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish});
        event(&self.chunk(&json!([choice]), None))
    }

    fn usage(&self, usage: Usage) -> String {
        event(&self.chunk(&json!([]), Some(usage)))
    }

    fn chunk(&self, choices: &Value, usage: Option<Usage>) -> Value {
        self.envelope.body("chat.completion.chunk", choices, usage)
    }
}
