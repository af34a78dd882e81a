//! A fully connected network learns to read handwritten digits.
//!
//! `cargo run --release --example digits_mlp [-- --data DIR_WITH_MNIST_FILES]`

mod digits;

use digits::{Recipe, run};
use graphc::nn::{Activation, Dense, Flatten, Layer, Sequential};
use graphc::optim::Sgd;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(&Recipe {
        model: |m, height, width| -> Box<dyn Layer> {
            Box::new(
                Sequential::new()
                    .then(Flatten)
                    .then(Dense::new(m, "hidden", height * width, 128))
                    .then(Activation::Relu)
                    .then(Dense::new(m, "out", 128, 10)),
            )
        },
        optimizer: &Sgd::new(0.1).momentum(0.9),
        learning_rate: 0.1,
        epochs: 30,
    })
}
