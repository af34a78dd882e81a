//! Einstein's summation convention over `dot_general`.

use crate::builder::{FunctionBuilder, Tensor};
use crate::types::{DType, Dim};
use std::collections::BTreeMap;

/// A letter, or an axis of an ellipsis, counted from the right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Label {
    Ellipsis(std::cmp::Reverse<usize>),
    Letter(char),
}

/// A tensor with a label for each axis, no two of them equal.
#[derive(Clone)]
struct Labelled<'f> {
    x: Tensor<'f>,
    labels: Vec<Label>,
}

/// `inputs -> output` of a specification, without spaces.
fn sides(spec: &str) -> (String, Option<String>) {
    let text: String = spec.chars().filter(|c| !c.is_whitespace()).collect();
    match text.split_once("->") {
        Some((inputs, output)) => (inputs.to_owned(), Some(output.to_owned())),
        None => (text, None),
    }
}

/// Labels of `term` for a tensor of rank `rank`, or of the output, whose ellipsis has `rank` axes.
fn labels(term: &str, ellipsis: impl Fn(usize) -> Option<usize>) -> Result<Vec<Label>, String> {
    let (before, after) = match term.split_once("...") {
        Some((before, after)) => (before, Some(after)),
        None => (term, None),
    };
    let letter = |c: char| {
        if c.is_alphabetic() { Ok(Label::Letter(c)) } else { Err(format!("`{c}` in `{term}` is no letter")) }
    };
    let mut all: Vec<Label> = before.chars().map(letter).collect::<Result<_, _>>()?;
    if let Some(after) = after {
        let letters = before.chars().count() + after.chars().count();
        let n = ellipsis(letters).ok_or_else(|| format!("`{term}` has {letters} letters"))?;
        all.extend((0..n).rev().map(|k| Label::Ellipsis(std::cmp::Reverse(k))));
        all.extend(after.chars().map(letter).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(all)
}

impl FunctionBuilder {
    /// Einstein's summation convention, as in NumPy and PyTorch: `spec` names the axes of each operand
    /// by letters and, after `->`, those of the result; what is not in the result is summed. Without
    /// `->` the result has the letters that occur once, in alphabetical order. A letter twice in one
    /// operand takes the diagonal; `...` stands for any axes, matched from the right. Axes of one letter have
    /// one extent; there is no broadcast of extent 1. Operands are contracted from left to right.
    ///
    /// ```
    /// # use graphc_ir::{DType, ModuleBuilder, shape};
    /// # let m = ModuleBuilder::new("m");
    /// # m.function("f", |f| {
    /// let q = f.input("q", DType::F32, shape!["B", 4, "T", 16]);
    /// let k = f.input("k", DType::F32, shape!["B", 4, "T", 16]);
    /// let k = k.reshape(k.shape());
    /// let scores = f.einsum("bhqd,bhkd->bhqk", &[q, k]);
    /// # f.output("scores", scores);
    /// # });
    /// # m.build().unwrap();
    /// ```
    #[track_caller]
    pub fn einsum<'f>(&'f self, spec: &str, operands: &[Tensor<'f>]) -> Tensor<'f> {
        if operands.iter().any(|t| t.is_poison()) {
            return self.poison();
        }
        match self.try_einsum(spec, operands) {
            Ok(result) => result,
            Err(message) => {
                self.misuse(format!("einsum \"{spec}\": {message}"));
                self.poison()
            }
        }
    }

    #[track_caller]
    fn try_einsum<'f>(&'f self, spec: &str, operands: &[Tensor<'f>]) -> Result<Tensor<'f>, String> {
        let (inputs, output) = sides(spec);
        let terms: Vec<&str> = inputs.split(',').collect();
        if terms.len() != operands.len() {
            return Err(format!("{} terms for {} operands", terms.len(), operands.len()));
        }
        let mut extents: BTreeMap<Label, Dim> = BTreeMap::new();
        let mut times: BTreeMap<Label, usize> = BTreeMap::new();
        let mut open: Vec<Labelled<'f>> = Vec::new();
        for (i, (term, &x)) in terms.iter().zip(operands).enumerate() {
            let own = labels(term, |letters| x.rank().checked_sub(letters))
                .map_err(|e| format!("{e}; operand {i} is {}", x.ty()))?;
            if own.len() != x.rank() {
                return Err(format!("`{term}` names {} axes, operand {i} is {}", own.len(), x.ty()));
            }
            for (&label, extent) in own.iter().zip(x.shape().iter()) {
                *times.entry(label).or_default() += 1;
                match extents.get(&label) {
                    Some(known) if known != extent => {
                        let Label::Letter(c) = label else {
                            return Err(format!("an axis of `...` is {known} and, in operand {i}, {extent}"));
                        };
                        return Err(format!("`{c}` is {known} and, in operand {i}, {extent}"));
                    }
                    _ => {
                        extents.insert(label, extent.clone());
                    }
                }
            }
            open.push(Labelled { x, labels: own }.diagonal());
        }
        let n_ellipsis = extents.keys().filter(|l| matches!(l, Label::Ellipsis(_))).count();
        let result: Vec<Label> = match &output {
            Some(term) => labels(term, |_| Some(n_ellipsis))?,
            // Ellipses come first in the order of labels.
            None => times
                .iter()
                .filter(|(l, n)| matches!(l, Label::Ellipsis(_)) || **n == 1)
                .map(|(l, _)| *l)
                .collect(),
        };
        for (i, label) in result.iter().enumerate() {
            if !extents.contains_key(label) || result[..i].contains(label) {
                let what = if extents.contains_key(label) { "twice in the result" } else { "in no operand" };
                return Err(match label {
                    Label::Letter(c) => format!("`{c}` is {what}"),
                    Label::Ellipsis(_) => format!("`...` is {what}"),
                });
            }
        }
        let mut operands = open.into_iter();
        let Some(mut all) = operands.next() else { return Err("no operands".to_owned()) };
        let rest: Vec<Labelled<'f>> = operands.collect();
        for (i, next) in rest.iter().enumerate() {
            let later = |l: &Label| result.contains(l) || rest[i + 1..].iter().any(|t| t.labels.contains(l));
            // What only one of both has, and nobody needs, is summed first.
            let kept = next.labels.clone();
            all = all.summed(|l| later(l) || kept.contains(l));
            let next = next.clone().summed(|l| later(l) || all.labels.contains(l));
            all = all.product(&next, later);
        }
        all = all.summed(|l| result.contains(l));
        let order: Vec<usize> =
            result.iter().filter_map(|l| all.labels.iter().position(|own| own == l)).collect();
        Ok(all.x.transpose(&order))
    }
}

impl<'f> Labelled<'f> {
    /// Takes the diagonal of axes with one label.
    #[track_caller]
    fn diagonal(mut self) -> Self {
        while let Some((first, second)) = (0..self.labels.len()).find_map(|i| {
            let label = self.labels[i];
            (i + 1..self.labels.len()).find(|&j| self.labels[j] == label).map(|j| (i, j))
        }) {
            let extent = self.x.shape()[first].clone();
            let at = self.x.builder().iota(DType::I64, vec![extent], 0);
            self.x = self.x.gather(&[at], &[second], &[(first, 0)]);
            self.labels.remove(second);
        }
        self
    }

    /// Sums the axes that are not kept.
    #[track_caller]
    fn summed(self, keep: impl Fn(&Label) -> bool) -> Self {
        let axes: Vec<usize> = (0..self.labels.len()).filter(|&a| !keep(&self.labels[a])).collect();
        if axes.is_empty() {
            return self;
        }
        let labels = self.labels.iter().copied().filter(|l| keep(l)).collect();
        Self { x: self.x.reduce_sum(&axes), labels }
    }

    /// The product with another tensor, summed over the common axes that are not needed later.
    #[track_caller]
    fn product(self, other: &Self, later: impl Fn(&Label) -> bool) -> Self {
        let common: Vec<Label> = self.labels.iter().copied().filter(|l| other.labels.contains(l)).collect();
        let at = |labels: &[Label], l: &Label| labels.iter().position(|own| own == l).unwrap_or(0);
        let (batch, contract): (Vec<Label>, Vec<Label>) = common.iter().copied().partition(|l| later(l));
        let axes =
            |labels: &[Label], of: &[Label]| -> Vec<usize> { of.iter().map(|l| at(labels, l)).collect() };
        let x = self.x.dot_general(
            other.x,
            (&axes(&self.labels, &batch), &axes(&other.labels, &batch)),
            (&axes(&self.labels, &contract), &axes(&other.labels, &contract)),
        );
        let free =
            |labels: &[Label]| labels.iter().copied().filter(|l| !common.contains(l)).collect::<Vec<_>>();
        Self { x, labels: [batch.clone(), free(&self.labels), free(&other.labels)].concat() }
    }
}
