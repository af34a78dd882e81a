//! Composites: functions over the builder that need no gradient rule and no lowering of their own.
//! Most are methods of [`crate::Tensor`]; here are those that are not.

mod activation;
mod arrange;
mod conv_transpose;
mod einsum;
mod indexing;
mod loss;
mod pool;
mod predicate;
mod random;
mod reduce;

pub use conv_transpose::ConvTransposeConfig;
pub use loss::{bce_with_logits, cross_entropy, mse};
pub use random::{RandomStream, initialize, stream_id};
