//! Transposed convolution.

use crate::builder::Tensor;
use crate::ops::ConvConfig;
use crate::types::{Dim, Shape};

/// How a [`Tensor::conv_transpose`] runs, one entry per spatial axis; the names and defaults are PyTorch's.
#[derive(Clone, Debug)]
pub struct ConvTransposeConfig {
    /// Steps of the convolution that it is the gradient of: 1.
    pub strides: Vec<usize>,
    /// Padding of that convolution, which here removes positions at both ends: 0.
    pub padding: Vec<usize>,
    /// Positions added at the end of the result: 0.
    pub output_padding: Vec<usize>,
    /// Steps within the kernel: 1.
    pub dilation: Vec<usize>,
    /// Groups of channels: 1.
    pub groups: usize,
}

impl ConvTransposeConfig {
    /// The defaults for so many spatial axes.
    pub fn new(spatial: usize) -> Self {
        Self {
            strides: vec![1; spatial],
            padding: vec![0; spatial],
            output_padding: vec![0; spatial],
            dilation: vec![1; spatial],
            groups: 1,
        }
    }
}

impl<'f> Tensor<'f> {
    /// The adjoint of a convolution, "deconvolution": `self: [N, C, s..]` and `w: [C, O / groups, k..]` to
    /// `[N, O, o..]` with `o = (s - 1) * stride - 2 * padding + dilation * (k - 1) + output_padding + 1`.
    /// The same numbers as PyTorch's `conv_transpose1d/2d/3d`. Channels and spatial extents are numbers.
    #[track_caller]
    pub fn conv_transpose(self, w: Self, config: &ConvTransposeConfig) -> Self {
        let f = self.builder();
        if self.is_poison() || w.is_poison() {
            return f.poison();
        }
        let n = self.rank().saturating_sub(2);
        let c = config;
        let lengths = [c.strides.len(), c.padding.len(), c.output_padding.len(), c.dilation.len()];
        let dims: Option<Vec<usize>> = w.shape().as_static();
        let (Some(k), true) = (dims, n > 0 && w.rank() == n + 2 && lengths == [n; 4] && c.groups > 0) else {
            f.misuse(format!(
                "conv_transpose: {config:?} must have one entry per spatial axis of {} and {}, whose extents \
                 are numbers",
                self.ty(),
                w.ty()
            ));
            return f.poison();
        };
        if k[0] % c.groups != 0 || k[2..].contains(&0) {
            f.misuse(format!("conv_transpose: {} has {} groups", w.ty(), c.groups));
            return f.poison();
        }
        // [g * C', O', k..] to [g * O', C', k..], mirrored: the kernel of a convolution of the spread input.
        let (per_group, out) = (k[0] / c.groups, k[1]);
        let kernel = k[2..].iter().copied();
        let split: Shape =
            [c.groups, per_group, out].into_iter().chain(kernel.clone()).map(Dim::from).collect();
        let exchange: Vec<usize> = [0, 2, 1].into_iter().chain(3..3 + n).collect();
        let joined: Shape = [c.groups * out, per_group].into_iter().chain(kernel).map(Dim::from).collect();
        let spatial: Vec<usize> = (2..2 + n).collect();
        let w = w.reshape(split).transpose(&exchange).reshape(joined).reverse(&spatial);
        let padding: Vec<(i64, i64)> = (0..n)
            .map(|a| {
                let side = ((k[a + 2] - 1) * c.dilation[a]) as i64 - c.padding[a] as i64;
                (side, side + c.output_padding[a] as i64)
            })
            .collect();
        let forward = ConvConfig::new(n)
            .padding(&padding)
            .lhs_dilation(&c.strides)
            .rhs_dilation(&c.dilation)
            .groups(c.groups);
        self.conv(w, &forward)
    }
}
