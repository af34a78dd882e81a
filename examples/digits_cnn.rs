//! A convolutional network learns to read handwritten digits: convolution, pooling, convolution,
//! pooling, fully connected.
//!
//! `cargo run --release --example digits_cnn [-- --data DIR_WITH_MNIST_FILES]`

mod digits;

use digits::{Recipe, run};
use graphc::nn::{Activation, Conv2d, Dense, Flatten, Layer, MaxPool2d, Sequential};
use graphc::optim::Adam;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(&Recipe {
        model: |m, height, width| -> Box<dyn Layer> {
            Box::new(
                Sequential::new()
                    .then(Conv2d::new(m, "conv1", 1, 16, 3, 1, 1))
                    .then(Activation::Relu)
                    .then(MaxPool2d::new(2))
                    .then(Conv2d::new(m, "conv2", 16, 32, 3, 1, 1))
                    .then(Activation::Relu)
                    .then(MaxPool2d::new(2))
                    .then(Flatten)
                    .then(Dense::new(m, "fc", 32 * (height / 4) * (width / 4), 64))
                    .then(Activation::Relu)
                    .then(Dense::new(m, "out", 64, 10)),
            )
        },
        optimizer: &Adam::new(3e-3),
        learning_rate: 3e-3,
        epochs: 30,
    })
}
