//! The forward and backward pass for training: every operation with its gradient written out, so that frozen weights
//! get none, padding does not exist, and only the rows that count reach the output layer.
//!
//! On the CPU in 32 bits the operations are loops and products of this module; elsewhere they are composed of candle's.

mod activation;
pub mod adapter;
mod attention;
mod batch;
mod cpu;
mod decoder;
mod gemm;
mod head;
mod heads;
mod layer;
mod linear;
mod nf4;
mod noise;
mod norm;
mod parameter;
mod weight;

pub use batch::Batch;
pub use decoder::{AdapterShape, Holding, Keep, Passed, TARGETS, TrainableDecoder, Trained};
pub use linear::{Adapters, Pass};
pub use nf4::Maxima;
pub use noise::Key;
pub use parameter::Parameter;
