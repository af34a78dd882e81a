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
