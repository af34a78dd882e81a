//! Elementary functions as polynomials of our own, generic over [`crate::ScalarBuilder`]: one
//! definition gives the same bits in the interpreter and in every code generator.

macro_rules! pending {
    ($($name:ident($($arg:ident),*)),*) => {$(
        /// Not written yet.
        pub fn $name<B: crate::ScalarBuilder>(_: &mut B, $($arg: B::V),*) -> B::V {
            $(let _ = $arg;)*
            unimplemented!("the elementary functions follow in a commit of their own")
        }
    )*};
}
pending!(
    exp(x),
    exp2(x),
    expm1(x),
    log(x),
    log1p(x),
    sin(x),
    cos(x),
    tan(x),
    tanh(x),
    sigmoid(x),
    erf(x),
    pow(x, y)
);

/// The words of Philox4x32-10 (Salmon et al. 2011) for a counter and a key, all `I32`.
pub fn philox4x32_10<B: crate::ScalarBuilder>(
    b: &mut B,
    mut counter: [B::V; 4],
    mut key: [B::V; 2],
) -> [B::V; 4] {
    for _ in 0..10 {
        let (m0, m1) = (b.i32(0xD251_1F53_u32 as i32), b.i32(0xCD9E_8D57_u32 as i32));
        let (high0, low0) = (b.op(crate::ScalarOp::MulHiU, &[m0, counter[0]]), b.mul(m0, counter[0]));
        let (high1, low1) = (b.op(crate::ScalarOp::MulHiU, &[m1, counter[2]]), b.mul(m1, counter[2]));
        let (mixed1, mixed0) = (b.xor(high1, counter[1]), b.xor(high0, counter[3]));
        counter = [b.xor(mixed1, key[0]), low1, b.xor(mixed0, key[1]), low0];
        let (w0, w1) = (b.i32(0x9E37_79B9_u32 as i32), b.i32(0xBB67_AE85_u32 as i32));
        key = [b.add(key[0], w0), b.add(key[1], w1)];
    }
    counter
}
