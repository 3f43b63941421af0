//! `POST /v1/embeddings` and `POST /v1/classify`.

use super::{
    Served,
    body::{Body, Fields},
    error::ApiError,
    generation::{Usage, identifier},
};
use crate::encoders::Text;
use axum::{Json, extract::State};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use gap_lm::inference::Scores;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Most texts of a request.
const MAX_TEXTS: usize = 2048;

/// A request for embeddings.
#[derive(Debug, Deserialize)]
pub struct EmbeddingRequest {
    model: String,
    input: Input,
    encoding_format: Option<EncodingFormat>,
    dimensions: Option<usize>,
    #[serde(rename = "user")]
    _user: Option<String>,
}

impl Fields for EmbeddingRequest {
    const KNOWN: &'static [&'static [&'static str]] = &[&["model", "input", "encoding_format", "dimensions", "user"]];
}

/// A request for classes.
#[derive(Debug, Deserialize)]
pub struct ClassifyRequest {
    model: String,
    input: Input,
    #[serde(rename = "user")]
    _user: Option<String>,
}

impl Fields for ClassifyRequest {
    const KNOWN: &'static [&'static [&'static str]] = &[&["model", "input", "user"]];
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    Float,
    Base64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

impl Input {
    fn texts(self) -> Result<Vec<Text>, ApiError> {
        let texts: Vec<Text> = match self {
            Self::Text(text) => vec![Text::Plain(text)],
            // An empty list fits every kind of list.
            Self::Texts(texts) => texts.into_iter().map(Text::Plain).collect(),
            Self::Tokens(tokens) => vec![Text::Tokens(tokens)],
            Self::TokenLists(lists) => lists.into_iter().map(Text::Tokens).collect(),
        };
        if texts.is_empty() || texts.len() > MAX_TEXTS {
            return Err(ApiError::invalid("input", format!("there must be 1 to {MAX_TEXTS} texts")));
        }
        // OpenAI refuses them as well: an empty text has no meaning to embed.
        match texts.iter().position(|text| *text == Text::Plain(String::new())) {
            Some(index) => Err(ApiError::invalid("input", format!("text {index} is empty"))),
            None => Ok(texts),
        }
    }
}

/// A vector for each text.
pub async fn embed(
    State(served): State<Served>,
    Body(request, _held): Body<EmbeddingRequest>,
) -> Result<Json<Value>, ApiError> {
    let (encoding, embedder) = served.catalogue.embedder(&request.model)?;
    if request.dimensions.is_some_and(|dimensions| dimensions != embedder.dimensions()) {
        let message = format!("this model's embeddings have {} dimensions and no others", embedder.dimensions());
        return Err(ApiError::NotOfModel { code: "dimensions_not_supported", message, param: "dimensions" });
    }
    let (rows, tokens) = encoding.run(request.input.texts()?).await?;
    let base64 = matches!(request.encoding_format, Some(EncodingFormat::Base64));
    let data = rows.into_iter().enumerate().map(|(index, row)| {
        let embedding = if base64 {
            let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
            json!(STANDARD.encode(bytes))
        } else {
            json!(row)
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    Ok(Json(json!({
        "object": "list",
        "data": data.collect::<Vec<_>>(),
        "model": request.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    })))
}

/// Classes of each text, with their probabilities.
pub async fn classify(
    State(served): State<Served>,
    Body(request, _held): Body<ClassifyRequest>,
) -> Result<Json<Value>, ApiError> {
    let (encoding, classifier) = served.catalogue.classifier(&request.model)?;
    let labels = &classifier.config().labels;
    let (rows, tokens) = encoding.run(request.input.texts()?).await?;
    let data = rows.into_iter().enumerate().map(|(index, scores)| {
        let probabilities = match classifier.config().scores {
            Scores::Softmax => softmax(&scores),
            Scores::Sigmoid => sigmoid(&scores),
            Scores::Raw => scores,
        };
        let best = (0..probabilities.len()).max_by(|a, b| {
            let at = |index: &usize| probabilities.get(*index).copied().unwrap_or_default();
            // The first of equals.
            at(a).total_cmp(&at(b)).then(b.cmp(a))
        });
        let named: Map<String, Value> =
            labels.iter().cloned().zip(probabilities.iter().map(|probability| json!(probability))).collect();
        json!({
            "index": index,
            "label": best.and_then(|best| labels.get(best)),
            "probs": probabilities,
            "num_classes": labels.len(),
            "scores": named,
        })
    });
    Ok(Json(json!({
        "id": identifier("classify-"),
        "object": "list",
        "created": super::now(),
        "model": request.model,
        "data": data.collect::<Vec<_>>(),
        "usage": Usage::new(tokens, 0),
    })))
}

fn softmax(scores: &[f32]) -> Vec<f32> {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

fn sigmoid(scores: &[f32]) -> Vec<f32> {
    scores.iter().map(|score| 1.0 / (1.0 + (-score).exp())).collect()
}
