//! One step of a recurrent network.

use graphc_ir::{FunctionBuilder, Param, Tensor};

/// What a recurrent layer does in one step, with the input `x`, the hidden state `h` and `s` the sigmoid. The
/// formulas, the order of the gates in the weights and the two biases are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// `h = tanh(W_ih x + b_ih + W_hh h + b_hh)` (Elman 1990).
    Tanh,
    /// `h = relu(W_ih x + b_ih + W_hh h + b_hh)`.
    Relu,
    /// Long short-term memory (Hochreiter and Schmidhuber 1997), gates in the order i, f, g, o:
    ///
    /// ```text
    /// z = W_ih x + b_ih + W_hh h + b_hh
    /// c = s(z_f) c + s(z_i) tanh(z_g);  h = s(z_o) tanh(c)
    /// ```
    Lstm,
    /// Gated recurrent unit (Cho et al. 2014), gates in the order r, z, n:
    ///
    /// ```text
    /// a = W_ih x + b_ih;  u = W_hh h + b_hh
    /// r = s(a_r + u_r);  z = s(a_z + u_z);  n = tanh(a_n + r u_n)
    /// h = (1 - z) n + z h
    /// ```
    Gru,
}

impl Cell {
    /// Number of rows of the weights, in units of the hidden width.
    pub(super) const fn gates(self) -> usize {
        match self {
            Self::Tanh | Self::Relu => 1,
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }

    /// Whether there is a cell state next to the hidden state.
    pub(super) const fn has_cell(self) -> bool {
        matches!(self, Self::Lstm)
    }
}

/// Weights of one layer in one direction: `f32[gates * hidden, input]`, `f32[gates * hidden, hidden]`, and two
/// biases `f32[gates * hidden]`.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    pub(super) input: Param,
    pub(super) hidden: Param,
    pub(super) input_bias: Param,
    pub(super) hidden_bias: Param,
}

impl Weights {
    /// What all steps take from their inputs, `[T, B, F]` to `[T, B, gates * hidden]`, before the loop begins.
    #[track_caller]
    pub(super) fn project<'f>(&self, cell: Cell, x: Tensor<'f>) -> Tensor<'f> {
        let f = x.builder();
        let y = x.dot_general(f.read(&self.input), (&[], &[]), (&[2], &[1])) + f.read(&self.input_bias);
        // In a GRU the gate r multiplies a part of it.
        if cell == Cell::Gru { y } else { y + f.read(&self.hidden_bias) }
    }

    /// One step: `projected: [B, gates * hidden]` and the states `[B, hidden]` to the next states.
    #[track_caller]
    pub(super) fn step<'f>(
        &self,
        f: &'f FunctionBuilder,
        cell: Cell,
        projected: Tensor<'f>,
        state: &[Tensor<'f>],
    ) -> Vec<Tensor<'f>> {
        let h = state[0];
        let u = h.dot_general(f.read(&self.hidden), (&[], &[]), (&[1], &[1]));
        match cell {
            Cell::Tanh => vec![(projected + u).tanh()],
            Cell::Relu => vec![(projected + u).relu()],
            Cell::Lstm => {
                let z = (projected + u).chunk(4, 1);
                let c = z[1].sigmoid() * state[1] + z[0].sigmoid() * z[2].tanh();
                vec![z[3].sigmoid() * c.tanh(), c]
            }
            Cell::Gru => {
                let (a, u) = (projected.chunk(3, 1), (u + f.read(&self.hidden_bias)).chunk(3, 1));
                let (r, z) = ((a[0] + u[0]).sigmoid(), (a[1] + u[1]).sigmoid());
                let n = (a[2] + r * u[2]).tanh();
                vec![(1.0 - z) * n + z * h]
            }
        }
    }
}
