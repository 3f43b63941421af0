//! The same numbers as unmodified Transformers, recorded by `reference/make.py`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on has failed"
)]

mod reference;

use candle_core::{DType, Device, Tensor};
use gap_lm::inference::{
    Allocation, Classifier, Decoder, DecoderConfig, Embedder, EncodedText, EncoderConfig, KvCache, Loader, Piece,
    Precision, SafetensorsDirectory,
};
use reference::{DECODERS, ENCODERS, difference, numbers, recorded, tokens, write_model};
use std::path::Path;

fn decoder(directory: &Path, precision: Option<Precision>) -> Decoder {
    let config = DecoderConfig::read(directory).unwrap();
    let source = SafetensorsDirectory::open(directory).unwrap();
    Decoder::load(config, Loader { source: &source, precision, device: &Device::Cpu }).unwrap()
}

/// Sequences with their part of a cache.
struct Run<'a> {
    decoder: &'a Decoder,
    cache: KvCache,
}

impl<'a> Run<'a> {
    fn new(decoder: &'a Decoder) -> Self {
        Self { cache: KvCache::new(decoder.config(), 4096, &Device::Cpu).unwrap(), decoder }
    }

    fn reserve(&mut self, positions: usize) -> Allocation {
        let mut allocation = Allocation::default();
        assert!(self.cache.reserve(&mut allocation, positions));
        allocation
    }

    fn forward(&self, pieces: &[(&[u32], usize, &Allocation)]) -> Vec<Vec<f32>> {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|(tokens, start, cached)| Piece { tokens, start: *start, cached, adapter: None, logits: 1 })
            .collect();
        self.decoder.forward(&self.cache, &pieces).unwrap().to_vec2().unwrap()
    }
}

fn likeliest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0))).unwrap();
    best.0 as u32
}

#[test]
fn logits_are_those_of_transformers() {
    for name in DECODERS {
        let directory = tempfile::tempdir().unwrap();
        write_model(name, directory.path());
        let decoder = decoder(directory.path(), None);
        for row in recorded(name)["rows"].as_array().unwrap() {
            let mut run = Run::new(&decoder);
            let prompt = tokens(&row["tokens"]);
            let cached = run.reserve(prompt.len());
            let logits = run.forward(&[(&prompt, 0, &cached)]);
            let difference = difference(&logits[0], &numbers(&row["logits"]));
            assert!(difference < 1e-4, "{name}: {difference} after {}", row["prompt"]);
        }
    }
}

#[test]
fn greedy_tokens_are_those_of_transformers_with_all_prompts_at_once() {
    for name in DECODERS {
        let directory = tempfile::tempdir().unwrap();
        write_model(name, directory.path());
        let decoder = decoder(directory.path(), None);
        let mut run = Run::new(&decoder);
        let recorded = recorded(name);
        let rows = recorded["rows"].as_array().unwrap();
        let mut sequences: Vec<(Vec<u32>, usize, Allocation)> =
            rows.iter().map(|row| (tokens(&row["tokens"]), 0, run.reserve(128))).collect();
        let starts: Vec<usize> = sequences.iter().map(|(tokens, ..)| tokens.len()).collect();
        for _ in 0..tokens(&rows[0]["greedy"]).len() {
            let pieces: Vec<_> = sequences.iter().map(|(tokens, done, at)| (&tokens[*done..], *done, at)).collect();
            let logits = run.forward(&pieces);
            for ((tokens, done, _), logits) in sequences.iter_mut().zip(logits) {
                *done = tokens.len();
                tokens.push(likeliest(&logits));
            }
        }
        for ((found, ..), (row, start)) in sequences.iter().zip(rows.iter().zip(starts)) {
            assert_eq!(found[start..], tokens(&row["greedy"]), "{name} after {}", row["prompt"]);
        }
    }
}

#[test]
fn a_prompt_in_pieces_and_among_others_gives_the_same_bits() {
    let directory = tempfile::tempdir().unwrap();
    write_model("mistral", directory.path());
    let decoder = decoder(directory.path(), None);
    let mut run = Run::new(&decoder);
    let prompt: Vec<u32> = (0..70).map(|index| 10 + index * 5 % 300).collect();
    let (whole, pieces, other) = (run.reserve(70), run.reserve(70), run.reserve(40));
    let expected = run.forward(&[(&prompt, 0, &whole)]).remove(0);
    let noise: Vec<u32> = (0..40).map(|index| 20 + index * 7 % 300).collect();
    run.forward(&[(&prompt[..33], 0, &pieces)]);
    run.forward(&[(&noise, 0, &other), (&prompt[33..69], 33, &pieces)]);
    assert_eq!(run.forward(&[(&prompt[69..], 69, &pieces)]).remove(0), expected);
}

#[test]
fn fewer_bits_change_little() {
    let directory = tempfile::tempdir().unwrap();
    write_model("llama", directory.path());
    for (precision, most) in [(Precision::Bf16, 0.5), (Precision::Q8, 0.5)] {
        let decoder = decoder(directory.path(), Some(precision));
        let recorded = recorded("llama");
        let rows = recorded["rows"].as_array().unwrap();
        let mut same = 0;
        for row in rows {
            let mut run = Run::new(&decoder);
            let prompt = tokens(&row["tokens"]);
            let cached = run.reserve(prompt.len());
            let logits = run.forward(&[(&prompt, 0, &cached)]).remove(0);
            let expected = numbers(&row["logits"]);
            assert!(difference(&logits, &expected) < most, "{precision:?}: {}", difference(&logits, &expected));
            same += usize::from(likeliest(&logits) == likeliest(&expected));
        }
        assert!(same >= rows.len() - 2, "{precision:?}: {same} of {} prompts go on the same way", rows.len());
    }
}

#[test]
fn encoders_answer_as_transformers_do_one_by_one_and_together() {
    for name in ENCODERS {
        let directory = tempfile::tempdir().unwrap();
        write_model(name, directory.path());
        let config = EncoderConfig::read(directory.path()).unwrap();
        let source = SafetensorsDirectory::open(directory.path()).unwrap();
        let loader = Loader { source: &source, precision: None, device: &Device::Cpu };
        let classifier = Classifier::load(config.clone(), loader).unwrap();
        let embedder = Embedder::load(directory.path(), config, loader).unwrap();
        let recorded = recorded(name);
        let rows = recorded["rows"].as_array().unwrap();
        let texts: Vec<EncodedText> = rows
            .iter()
            .map(|row| tokens(&row["tokens"]))
            .map(|tokens| EncodedText { types: vec![0; tokens.len()], tokens })
            .collect();
        let together = classifier.forward(&texts).unwrap();
        let means = embedder.embed(&texts).unwrap();
        for (index, row) in rows.iter().enumerate() {
            assert!(difference(&together[index], &numbers(&row["logits"])) < 1e-4, "{name}: {}", row["prompt"]);
            assert!(difference(&means[index], &numbers(&row["mean"])) < 1e-5, "{name}: {}", row["prompt"]);
            assert_eq!(classifier.forward(&texts[index..=index]).unwrap()[0], together[index]);
        }
    }
}

#[test]
fn an_adapter_changes_only_the_sequences_that_ask_for_it() {
    let directory = tempfile::tempdir().unwrap();
    write_model("qwen3", directory.path());
    let decoder = decoder(directory.path(), None);
    let adapter = directory.path().join("adapter");
    let (hidden, queries, rank) = (64, 4 * 24, 4);
    let a = reference::weights("lora.a", &[rank, hidden]);
    let b = reference::weights("lora.b", &[queries, rank]);
    reference::write_adapter(
        &adapter,
        "model.layers.1.self_attn.q_proj",
        [(rank, hidden), (queries, rank)],
        [&a, &b],
        8.0,
    );
    let adapter = gap_lm::inference::Adapter::load(&adapter, decoder.config(), &Device::Cpu).unwrap();

    // The same change in the weights themselves.
    let merged = tempfile::tempdir().unwrap();
    write_model("qwen3", merged.path());
    let name = "model.layers.1.self_attn.q_proj.weight";
    let (a, b) = (
        Tensor::from_vec(a, (rank, hidden), &Device::Cpu).unwrap(),
        Tensor::from_vec(b, (queries, rank), &Device::Cpu).unwrap(),
    );
    let own = Tensor::from_vec(reference::weights(name, &[queries, hidden]), (queries, hidden), &Device::Cpu).unwrap();
    let changed = (own + (b.matmul(&a).unwrap() * (8.0 / rank as f64)).unwrap()).unwrap();
    let changed = changed.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    reference::replace_tensor(merged.path(), name, changed);
    let merged = self::decoder(merged.path(), None);

    let prompt = [5, 77, 200, 13, 42];
    let mut run = Run::new(&decoder);
    let (with, without) = (run.reserve(8), run.reserve(8));
    let piece = |cached, adapter| Piece { tokens: &prompt, start: 0, cached, adapter, logits: 1 };
    let pieces = [piece(&with, Some(&adapter)), piece(&without, None)];
    let found: Vec<Vec<f32>> = decoder.forward(&run.cache, &pieces).unwrap().to_vec2().unwrap();
    let plain = Run::new(&decoder).forward_one(&prompt);
    let expected = Run::new(&merged).forward_one(&prompt);
    assert_eq!(found[1], plain, "the other sequence is as it was");
    assert!(difference(&found[0], &plain) > 1e-2);
    assert!(difference(&found[0], &expected) < 1e-4);
}

impl Run<'_> {
    fn forward_one(mut self, tokens: &[u32]) -> Vec<f32> {
        let cached = self.reserve(tokens.len());
        self.forward(&[(tokens, 0, &cached)]).remove(0)
    }
}
