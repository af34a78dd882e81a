//! The workloads, apart from any framework: shapes, starting values, data and the rule of update.
//!
//! All values come from one integer hash, so that every program that runs a workload starts from the same numbers.

/// One tensor: the values in row-major order.
pub(crate) struct Values {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// What the layers are and how the loss follows from them.
#[derive(Clone, Copy)]
pub(crate) enum Model {
    /// Linear layers between these sizes, relu after all but the last; mean softmax cross entropy.
    Classifier(&'static [usize]),
    /// Linear layers between these sizes, a sigmoid after each; mean squared difference from the input.
    Autoencoder(&'static [usize]),
    /// LeNet-5 with relu and max pooling; mean softmax cross entropy.
    LeNet5,
    /// The CIFAR ResNet-20 of [`BLOCKS`], with 1x1 projections; mean softmax cross entropy.
    ResNet20,
}

/// How parameters follow from gradients.
#[derive(Clone, Copy)]
pub(crate) enum Optimizer {
    /// `g += weight_decay p;  v = momentum v + g;  p -= lr v`.
    Sgd { lr: f64, momentum: f64, weight_decay: f64 },
    /// Adam (Kingma and Ba, 2015) with [`BETAS`] and [`EPSILON`].
    Adam { lr: f64 },
}

/// Decay of Adam's moments.
pub(crate) const BETAS: [f64; 2] = [0.9, 0.999];
/// Added to Adam's denominator.
pub(crate) const EPSILON: f64 = 1e-8;

/// Basic blocks of [`Model::ResNet20`]: channels in, channels out, stride.
pub(crate) const BLOCKS: [(usize, usize, usize); 9] = [
    (16, 16, 1),
    (16, 16, 1),
    (16, 16, 1),
    (16, 32, 2),
    (32, 32, 1),
    (32, 32, 1),
    (32, 64, 2),
    (64, 64, 1),
    (64, 64, 1),
];

/// Classes that labels have.
const CLASSES: u32 = 10;

/// One training problem.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) model: Model,
    pub(crate) optimizer: Optimizer,
    /// Shape of the input, images as `[N, C, H, W]`.
    pub(crate) input: &'static [usize],
    /// Bounds of the input's values, the upper one excluded.
    range: (f64, f64),
    /// Multiplications and additions in matrix products and convolutions of one step.
    pub(crate) flops: u64,
}

pub(crate) const WORKLOADS: [Workload; 5] = [
    Workload {
        name: "mlp_small",
        model: Model::Classifier(&[64, 64, 10]),
        optimizer: Optimizer::Sgd { lr: 0.05, momentum: 0.9, weight_decay: 0.0 },
        input: &[32, 64],
        range: (-1.0, 1.0),
        flops: 647_168,
    },
    Workload {
        name: "mlp",
        model: Model::Classifier(&[784, 512, 512, 10]),
        optimizer: Optimizer::Adam { lr: 1e-4 },
        input: &[128, 784],
        range: (-1.0, 1.0),
        flops: 410_779_648,
    },
    Workload {
        name: "autoencoder",
        model: Model::Autoencoder(&[784, 256, 64, 256, 784]),
        optimizer: Optimizer::Adam { lr: 1e-3 },
        input: &[128, 784],
        range: (0.0, 1.0),
        flops: 282_066_944,
    },
    Workload {
        name: "lenet5",
        model: Model::LeNet5,
        optimizer: Optimizer::Sgd { lr: 0.01, momentum: 0.9, weight_decay: 0.0 },
        input: &[64, 1, 28, 28],
        range: (0.0, 1.0),
        flops: 144_890_880,
    },
    Workload {
        name: "resnet20",
        model: Model::ResNet20,
        optimizer: Optimizer::Sgd { lr: 0.01, momentum: 0.9, weight_decay: 1e-4 },
        input: &[32, 3, 32, 32],
        range: (-1.0, 1.0),
        flops: 7_807_819_776,
    },
];

impl Workload {
    /// Examples in the batch.
    pub(crate) fn batch(&self) -> usize {
        self.input[0]
    }

    /// The batch's inputs.
    pub(crate) fn inputs(&self) -> Vec<f32> {
        uniform(1, self.input.iter().product(), self.range.0, self.range.1)
    }

    /// The class of each example; meaningless for an autoencoder.
    pub(crate) fn labels(&self) -> Vec<u32> {
        (0..self.batch()).map(|i| hash(2, i) % CLASSES).collect()
    }

    /// The starting values of all parameters in canonical order.  Linear weights are `[out, in]`, kernels
    /// `[out, in, height, width]`.
    pub(crate) fn parameters(&self) -> Vec<Values> {
        let mut p = Parameters::default();
        match self.model {
            Model::Classifier(sizes) | Model::Autoencoder(sizes) => {
                sizes.windows(2).for_each(|s| p.linear(s[0], s[1]));
            }
            Model::LeNet5 => {
                p.convolution(1, 6, 5);
                p.bias(6, 25);
                p.convolution(6, 16, 5);
                p.bias(16, 150);
                p.linear(400, 120);
                p.linear(120, 84);
                p.linear(84, 10);
            }
            Model::ResNet20 => {
                p.convolution(3, 16, 3);
                p.batch_norm(16);
                for (c_in, c_out, stride) in BLOCKS {
                    p.convolution(c_in, c_out, 3);
                    p.batch_norm(c_out);
                    p.convolution(c_out, c_out, 3);
                    p.batch_norm(c_out);
                    if stride != 1 {
                        p.convolution(c_in, c_out, 1);
                        p.batch_norm(c_out);
                    }
                }
                p.linear(64, 10);
            }
        }
        p.0
    }
}

/// Parameters so far; the number of each decides its values.
#[derive(Default)]
struct Parameters(Vec<Values>);

impl Parameters {
    fn uniform(&mut self, shape: Vec<usize>, fan_in: usize) {
        let bound = 1.0 / (fan_in as f64).sqrt();
        let values = uniform(1000 + self.0.len() as u32, shape.iter().product(), -bound, bound);
        self.0.push(Values { shape, values });
    }

    fn bias(&mut self, n: usize, fan_in: usize) {
        self.uniform(vec![n], fan_in);
    }

    fn linear(&mut self, n_in: usize, n_out: usize) {
        self.uniform(vec![n_out, n_in], n_in);
        self.bias(n_out, n_in);
    }

    fn convolution(&mut self, c_in: usize, c_out: usize, side: usize) {
        self.uniform(vec![c_out, c_in, side, side], c_in * side * side);
    }

    fn batch_norm(&mut self, n: usize) {
        for value in [1.0, 0.0] {
            self.0.push(Values { shape: vec![n], values: vec![value; n] });
        }
    }
}

/// `n` values in `[lo, hi)`.
fn uniform(stream: u32, n: usize, lo: f64, hi: f64) -> Vec<f32> {
    (0..n).map(|i| (lo + (hi - lo) * unit(stream, i)) as f32).collect()
}

/// A value in `[0, 1)`, exact in f32 and f64.
fn unit(stream: u32, i: usize) -> f64 {
    f64::from(hash(stream, i) >> 8) / f64::from(1 << 24)
}

fn hash(stream: u32, i: usize) -> u32 {
    mix(mix(i as u32).wrapping_add(stream.wrapping_mul(0x9E37_79B9)))
}

/// The finalizer `lowbias32` of Wellons' "Prospecting for Hash Functions".
fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generator_gives_the_values_of_the_definition() {
        assert_eq!([0, 1, 2, 3].map(|i| hash(1, i)), [0x01fc_e552, 0xb21c_8e52, 0xdfe0_2260, 0x6baa_441b]);
        assert_eq!([0, 1, 2, 3].map(|i| hash(1000, i)), [0xfba6_7a6e, 0xd06a_b3eb, 0xaa90_f540, 0xe68b_b32d]);
        let units = [0, 1, 2, 3].map(|i| (unit(1000, i) * 1e9).round());
        assert_eq!(units, [983008981.0, 814128101.0, 666274369.0, 900569141.0]);
    }

    #[test]
    fn workloads_have_their_numbers_of_parameters() {
        let counts = WORKLOADS.map(|w| w.parameters().iter().map(|p| p.values.len()).sum::<usize>());
        assert_eq!(counts, [4_810, 669_706, 435_536, 61_706, 272_474]);
    }
}
