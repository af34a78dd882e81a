//! Which kernels of a program have the same structure: they differ at most in where their buffers are, so they are
//! scheduled once, and most of them share code.

use super::{BufferId, Kernel, KernelBody};
use crate::program::{Buffer, Place};
use crate::threads::on_all_threads;
use graphc_ir::DType;
use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;
use std::mem::{Discriminant, discriminant};

/// What schedule and code of a kernel depend on.
#[derive(PartialEq, Eq, Hash)]
struct Structure {
    /// Without name and sources; its buffers are numbered in the order in which it mentions them.
    kernel: Kernel,
    buffers: Vec<Form>,
}

/// What corresponding buffers have in common.
#[derive(PartialEq, Eq, Hash)]
struct Form {
    dtype: DType,
    dims: Vec<usize>,
    strides: Vec<usize>,
    memory: Discriminant<Place>,
    /// The first of the kernel's buffers at this one's place: another one if the kernel works in place.
    first_there: usize,
}

/// The first kernel of the same structure as one.
pub(crate) struct Like {
    /// Its number; the kernel's own where it is the first.
    pub(crate) first: usize,
    /// The kernel's buffer for each of the first one's.
    pub(crate) buffers: FxHashMap<BufferId, BufferId>,
}

/// For each kernel the first that is like it.
pub(crate) fn first_alike(kernels: &[Kernel], buffers: &[Buffer]) -> Vec<Like> {
    // Only what has as many expressions over the same points as another can be like it.
    fn size(k: &Kernel) -> (usize, usize, &[i64]) {
        (k.exprs.len(), k.stores.len(), &k.space.extents)
    }
    let mut sizes: FxHashMap<_, usize> = FxHashMap::default();
    kernels.iter().for_each(|k| *sizes.entry(size(k)).or_default() += 1);
    let all: Vec<usize> = (0..kernels.len()).collect();
    let structures = on_all_threads(&all, |k| {
        let kernel = &kernels[k];
        let runs_programs = matches!(kernel.body, KernelBody::Region { .. });
        (!runs_programs && sizes[&size(kernel)] > 1).then(|| structure(kernel, buffers))
    });
    let mut firsts: FxHashMap<Structure, (usize, Vec<BufferId>)> = FxHashMap::default();
    let alike = structures.into_iter().enumerate().map(|(k, structure)| {
        let alone = Like { first: k, buffers: FxHashMap::default() };
        let Some((structure, own)) = structure.flatten() else { return alone };
        match firsts.entry(structure) {
            Entry::Occupied(first) => {
                let (first, theirs) = first.get();
                Like { first: *first, buffers: theirs.iter().copied().zip(own).collect() }
            }
            Entry::Vacant(new) => {
                new.insert((k, own));
                alone
            }
        }
    });
    alike.collect()
}

/// The structure of a kernel, and its buffers in the order of their numbers there.
fn structure(kernel: &Kernel, buffers: &[Buffer]) -> (Structure, Vec<BufferId>) {
    let mut kernel = Kernel { name: String::new(), sources: Vec::new(), ..kernel.clone() };
    let mut own: Vec<BufferId> = Vec::new();
    kernel.for_each_buffer(&mut |b| {
        let known = own.iter().position(|n| n == b);
        *b = known.unwrap_or_else(|| {
            own.push(*b);
            own.len() - 1
        }) as BufferId;
    });
    let place = |b: BufferId| buffers[b as usize].place;
    let form = |&b: &BufferId| {
        let Buffer { dtype, ref dims, ref strides, .. } = buffers[b as usize];
        let first_there = own.iter().position(|&o| place(o) == place(b)).expect("it is one of them");
        Form {
            dtype,
            dims: dims.clone(),
            strides: strides.clone(),
            memory: discriminant(&place(b)),
            first_there,
        }
    };
    let forms = own.iter().map(form).collect();
    (Structure { kernel, buffers: forms }, own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{CompileOptions, compile_stages};
    use graphc_ir::{Bindings, ModuleBuilder};

    #[test]
    fn like_another_is_what_differs_in_the_places_of_its_buffers_alone() {
        let m = ModuleBuilder::new("layers");
        m.function("f", |f| {
            let mut x = f.input("x", DType::F32, [20, 24]);
            for (i, [rows, columns]) in
                [[24; 2], [24; 2], [24; 2], [24; 2], [24; 2], [24, 23], [23, 24], [24; 2]]
                    .into_iter()
                    .enumerate()
            {
                let x_w = x.dot(f.input(&format!("w{i}"), DType::F32, [rows, columns]));
                x = if i == 3 { x_w.exp() } else { x_w.tanh() };
            }
            f.output("y", x);
        });
        let module = m.build().unwrap();
        let (_, stages) = compile_stages(&module, "f", &Bindings::new(), &CompileOptions::default()).unwrap();
        let program = &stages.assembled.program;
        let products = program.kernels.iter().zip(&program.alike);
        let products: Vec<usize> =
            products.filter(|(k, _)| matches!(k.body, KernelBody::Contraction(_))).map(|(_, &a)| a).collect();
        let first_like = |i: usize| products.iter().position(|p| *p == products[i]).unwrap();
        // The first reads an input, one has another function, two have other extents, the last writes an output.
        assert_eq!((0..8).map(first_like).collect::<Vec<_>>(), [0, 1, 1, 3, 1, 5, 6, 7]);
    }
}
