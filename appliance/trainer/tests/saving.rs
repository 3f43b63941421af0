//! What saving costs: memory, and room on the disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod trial;

use candle_core::{DType, Device, Tensor};
use gap_contract::{JobSpec, Output};
use gap_lm::{
    inference::{DecoderConfig, SafetensorsDirectory},
    training::{Holding, TrainableDecoder, Trained},
};
use gap_train::{
    checkpoint::{self, State},
    optimizer::{AdamW, Moments},
    result,
    tensors::{self, Tensors},
};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use std::{collections::HashMap, fs, process::Command};
use trial::Trial;

fn random(shape: &[usize]) -> Tensor {
    Tensor::rand(-1f32, 1f32, shape, &Device::Cpu).unwrap()
}

#[test]
fn the_bytes_of_tensors_are_those_of_the_formats_own_library() {
    let tensors = Tensors::from([
        ("second.b".to_owned(), random(&[3, 5])),
        // One that is written in several pieces.
        ("first.b".to_owned(), random(&[200_003, 3])),
        ("a".to_owned(), random(&[7])),
        // One that does not lie as it is written.
        ("turned".to_owned(), random(&[4, 6]).t().unwrap()),
    ]);
    let bytes = |tensor: &Tensor| -> Vec<u8> {
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    };
    let bytes: Vec<_> = tensors.iter().map(|(name, tensor)| (name, tensor.dims().to_vec(), bytes(tensor))).collect();
    for notes in [HashMap::new(), HashMap::from([("format".to_owned(), "pt".to_owned())])] {
        let view = |shape: &[usize], bytes| TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap();
        let views = bytes.iter().map(|(name, shape, bytes)| (*name, view(shape, bytes)));
        let theirs = safetensors::serialize(views, Some(notes.clone())).unwrap();
        let mut ours = Vec::new();
        tensors::write(&tensors, notes.clone(), &mut ours).unwrap();
        assert!(ours == theirs);
        assert_eq!(tensors::size(&tensors, notes).unwrap(), theirs.len() as u64);
    }
}

#[test]
fn values_that_are_no_numbers_are_not_saved() {
    let wrong = Tensor::new(&[1f32, f32::NAN], &Device::Cpu).unwrap();
    let tensors = Tensors::from([("a".to_owned(), random(&[2])), ("b".to_owned(), wrong)]);
    let found = tensors::write(&tensors, HashMap::new(), &mut Vec::new()).unwrap_err();
    assert_eq!(found.to_string(), "`b` has values that are no numbers");
}

/// The most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The other tests of this file need a few MiB in this process, or run in others: this one's memory is what grows.
#[test]
fn saving_all_weights_takes_no_second_copy_of_them() {
    let trial = Trial { dir: tempfile::tempdir().unwrap() };
    fs::write(trial.path("texts.jsonl"), "{\"text\": \"What follows 1?\"}\n").unwrap();
    let mut init = Command::new(trial::PROGRAM);
    init.args(["init", "model", "--hidden", "512", "--layers", "4", "--intermediate", "1536", "--vocab", "300"]);
    trial::succeed(init.args(["--vocab-from", "texts.jsonl"]).current_dir(trial.dir.path()));
    let model = trial.path("model");
    let holding =
        Holding { device: Device::Cpu, weights: DType::F32, activations: DType::F32, nf4: None, checkpointing: false };
    let source = SafetensorsDirectory::open(&model).unwrap();
    let config = DecoderConfig::read(&model).unwrap();
    let mut decoder = TrainableDecoder::load(&source, config, &Trained::All, holding).unwrap();
    let (mut optimizer, mut largest) = (AdamW::default(), 0);
    decoder.visit(|parameter| {
        let moment = || Tensor::ones(parameter.value().shape(), DType::F32, &Device::Cpu).unwrap();
        optimizer.restore(parameter.name(), Moments { first: moment(), second: moment() });
        largest = largest.max(parameter.value().elem_count() as u64 * 4);
    });
    let (parameters, _) = decoder.sizes();
    let output = Output::new(trial.path("out"));
    fs::create_dir_all(output.checkpoints()).unwrap();
    let spec = json!({"model": model, "training_file": "t", "output": output.dir(), "max_steps": 1});
    let job = JobSpec::parse(spec.to_string().as_bytes()).unwrap().check().unwrap();

    let before = peak();
    let state = State { step: 1, ..State::default() };
    checkpoint::write(&output, &state, &mut decoder, &optimizer).unwrap();
    assert_eq!(checkpoint::state(&output, 1).unwrap(), state);
    result::write(&output, &job, &mut decoder).unwrap();
    let more = peak() - before;
    let (room, whole) = (largest + (8 << 20), parameters as u64 * 4);
    assert!(room < whole / 3, "the model is too small to tell");
    assert!(more <= room, "saving took {more} bytes more, and the largest tensor has {largest}");
}
