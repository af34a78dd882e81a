//! Elementary functions as polynomials of our own, generic over [`crate::ScalarBuilder`]: one
//! definition gives the same bits in the interpreter and in every code generator.
