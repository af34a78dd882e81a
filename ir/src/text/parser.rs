//! Reads the text form. One statement a line: after a mistake, reading goes on at the next line.

use super::error::{ParseError, ParseErrors};
use super::lexer::{Fail, Lexer, Name, Token, clip};
use super::plain_nan;
use super::{
    FORMAT_VERSION, MAX_ERRORS, MAX_INIT_NUMBERS, MAX_LIST, MAX_NESTING, MAX_SPLAT_BYTES, MAX_TEXT_BYTES,
    is_ident, is_number,
};
use crate::attr::{AttrMap, AttrValue};
use crate::graph::{Node, NodeId, Origin, SourceLoc};
use crate::init::Initializer;
use crate::literal::Literal;
use crate::module::{Function, Module, Output, StateId, StateVar, Update};
use crate::ops::{Constant, Input, Op, OpDef, ReadState, ResultOf};
use crate::region::Region;
use crate::scalar::Scalar;
use crate::types::{DType, Dim, MAX_ELEMENTS, MAX_RANK, TensorType};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

type Parsed<T> = Result<T, Fail>;

impl Module {
    /// Reads a module from its text form. `file` names it in errors and source locations.
    ///
    /// # Errors
    /// Every mistake found, at most 20.
    pub fn parse(file: &str, text: &str) -> Result<Self, ParseErrors> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(ParseErrors(vec![too_long(file, text.len())]));
        }
        Parser::new(file).run(text)
    }

    /// Like [`Module::parse`], of bytes that should be UTF-8.
    ///
    /// # Errors
    /// As [`Module::parse`], and for bytes that are not UTF-8.
    pub fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Self, ParseErrors> {
        if bytes.len() > MAX_TEXT_BYTES {
            return Err(ParseErrors(vec![too_long(file, bytes.len())]));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(file, text),
            Err(e) => {
                let valid = std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default();
                let line = valid.matches('\n').count() + 1;
                let last = valid.rsplit('\n').next().unwrap_or_default();
                let line = u32::try_from(line).unwrap_or(u32::MAX);
                Err(ParseErrors(vec![ParseError::new("not UTF-8 here", file, line, last, last.len())]))
            }
        }
    }
}

fn too_long(file: &str, bytes: usize) -> ParseError {
    ParseError::new(&format!("the text has {bytes} bytes, at most 64 MiB are read"), file, 1, "", 0)
}

/// What a name of a function stands for; `None` after a mistake in its definition.
type Value = Option<NodeId>;

/// A function being read.
#[derive(Default)]
struct Body {
    function: Function,
    /// By (is a number, name).
    values: HashMap<(bool, String), Value>,
    reads: HashMap<StateId, NodeId>,
    updated: HashSet<StateId>,
    returned: bool,
    /// The header had a mistake: undefined values are not reported.
    broken: bool,
    /// It is a region, not a function of the module.
    region: bool,
    /// Number of errors when it began.
    mistakes: usize,
    /// Line number and text of the header, for the error of an unclosed function.
    header: (u32, String),
}

struct Parser<'t> {
    file: &'t str,
    arc_file: Arc<str>,
    errors: Vec<ParseError>,
    module: Module,
    states: HashMap<Arc<str>, Option<StateId>>,
    functions: HashSet<Arc<str>>,
    /// Regions by name; `None` after a mistake.
    regions: HashMap<Arc<str>, Option<Region>>,
    named: bool,
    splat_bytes: usize,
    body: Option<Body>,
    line: u32,
    /// Line, byte in it and characters before it of the last location.
    counted: Cell<(u32, usize, usize)>,
}

fn expect(lx: &mut Lexer<'_>, c: char) -> Parsed<()> {
    let at = lx.start();
    match lx.token()? {
        Token::Punct(p) if p == c => Ok(()),
        other => Err(Fail::new(at, format!("expected `{c}`, found {}", other.describe()))),
    }
}

/// Takes `c` if it is next.
fn accept(lx: &mut Lexer<'_>, c: char) -> bool {
    let mut ahead = *lx;
    let found = matches!(ahead.token(), Ok(Token::Punct(p)) if p == c);
    if found {
        *lx = ahead;
    }
    found
}

fn expect_end(lx: &mut Lexer<'_>) -> Parsed<()> {
    let at = lx.start();
    match lx.token()? {
        Token::End => Ok(()),
        other => Err(Fail::new(at, format!("expected the end of the line, found {}", other.describe()))),
    }
}

fn value_name<'a>(lx: &mut Lexer<'a>) -> Parsed<(usize, Name<'a>)> {
    let at = lx.start();
    match lx.token()? {
        Token::Value(n) => Ok((at, n)),
        other => Err(Fail::new(at, format!("expected a name such as `%x`, found {}", other.describe()))),
    }
}

fn at_name<'a>(lx: &mut Lexer<'a>) -> Parsed<(usize, Name<'a>)> {
    let at = lx.start();
    match lx.token()? {
        Token::At(n) => Ok((at, n)),
        other => Err(Fail::new(at, format!("expected a name such as `@f`, found {}", other.describe()))),
    }
}

fn word<'a>(lx: &mut Lexer<'a>, what: &str) -> Parsed<(usize, &'a str)> {
    let at = lx.start();
    match lx.token()? {
        Token::Word(w) => Ok((at, w)),
        other => Err(Fail::new(at, format!("expected {what}, found {}", other.describe()))),
    }
}

/// Values of a list whose opening bracket is behind; each is read by `item`.
fn list(lx: &mut Lexer<'_>, close: char, mut item: impl FnMut(&mut Lexer<'_>) -> Parsed<()>) -> Parsed<()> {
    if accept(lx, close) {
        return Ok(());
    }
    loop {
        item(lx)?;
        let at = lx.start();
        match lx.token()? {
            Token::Punct(',') => {}
            Token::Punct(c) if c == close => return Ok(()),
            other => {
                return Err(Fail::new(at, format!("expected `,` or `{close}`, found {}", other.describe())));
            }
        }
    }
}

fn tensor_type(lx: &mut Lexer<'_>) -> Parsed<TensorType> {
    let (at, name) = word(lx, "a type such as `f32[2, 3]`")?;
    let Some(dtype) = DType::from_name(name) else {
        let message = format!("unknown element type `{}`: known are f32, f64, i32, i64, bool", clip(name));
        return Err(Fail::new(at, message));
    };
    expect(lx, '[')?;
    let mut dims: Vec<Dim> = Vec::new();
    list(lx, ']', |lx| {
        let at = lx.start();
        if dims.len() == MAX_RANK {
            return Err(Fail::new(at, format!("more than {MAX_RANK} dimensions")));
        }
        let dim = match lx.token()? {
            Token::Word(w) if is_ident(w) => {
                if w.len() > super::MAX_NAME_BYTES {
                    return Err(Fail::new(at, "the name of a dimension is longer than 256 bytes"));
                }
                Dim::from(w)
            }
            Token::Str(s) => Dim::from(s.as_str()),
            Token::Word(w) if is_number(w) => match w.parse::<usize>() {
                Ok(n) if n <= MAX_ELEMENTS => Dim::Const(n),
                _ => return Err(Fail::new(at, "an extent is at most 2^40")),
            },
            Token::Word(w) => Dim::parse(w).ok_or_else(|| {
                Fail::new(at, format!("`{}` is not an extent such as 8, B or 2*B+1", clip(w)))
            })?,
            other => return Err(Fail::new(at, format!("expected an extent, found {}", other.describe()))),
        };
        dims.push(dim);
        Ok(())
    })?;
    let ty = TensorType::new(dtype, dims);
    if ty.shape.as_static().is_some() && ty.size_bytes().is_none() {
        return Err(Fail::new(at, format!("{ty} has more than 2^40 elements")));
    }
    Ok(ty)
}

/// A scalar of type `dtype`.
fn scalar(lx: &mut Lexer<'_>, dtype: DType) -> Parsed<Scalar> {
    let (at, w) = word(lx, "a number")?;
    let fail = || Fail::new(at, format!("`{}` is not a value of type {dtype}", clip(w)));
    if dtype.is_float() && matches!(w, "nan" | "NaN") {
        if !accept(lx, '(') {
            return Ok(plain_nan(dtype));
        }
        let (at, bits) = word(lx, "the bits of a NaN")?;
        expect(lx, ')')?;
        let bad = || Fail::new(at, format!("`{}` are not the bits of a NaN of type {dtype}", clip(bits)));
        let digits = bits.strip_prefix("0x").filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let bits = u64::from_str_radix(digits.ok_or_else(bad)?, 16).map_err(|_| bad())?;
        let value = Scalar::from_bits(dtype, bits);
        let fits = value.bits() == bits && value.to_f64().is_nan();
        return if fits { Ok(value) } else { Err(bad()) };
    }
    let digits = w.strip_prefix('-').unwrap_or(w);
    let finite = digits.starts_with(|c: char| c.is_ascii_digit());
    let value = match dtype {
        DType::Bool => w.parse().ok().map(Scalar::Bool),
        DType::I32 => w.parse().ok().filter(|_| finite).map(Scalar::I32),
        DType::I64 => w.parse().ok().filter(|_| finite).map(Scalar::I64),
        DType::U8 => w.parse().ok().filter(|_| finite).map(Scalar::U8),
        DType::F32 if finite => w.parse().ok().filter(|v: &f32| v.is_finite()).map(Scalar::F32),
        DType::F64 if finite => w.parse().ok().filter(|v: &f64| v.is_finite()).map(Scalar::F64),
        DType::F32 if digits == "inf" => w.parse().ok().map(Scalar::F32),
        DType::F64 if digits == "inf" => w.parse().ok().map(Scalar::F64),
        // As far as the decimals go, an f64 is rounded once more.
        DType::BF16 | DType::F16 if finite => {
            let value = w.parse().ok().map(|v: f64| Scalar::F64(v).cast(dtype));
            value.filter(|v| v.to_f64().is_finite())
        }
        DType::BF16 | DType::F16 if digits == "inf" => {
            w.parse().ok().map(|v: f64| Scalar::F64(v).cast(dtype))
        }
        DType::F32 | DType::F64 | DType::BF16 | DType::F16 => None,
    };
    value.ok_or_else(fail)
}

fn float(lx: &mut Lexer<'_>) -> Parsed<f64> {
    scalar(lx, DType::F64).map(Scalar::to_f64)
}

fn initializer(lx: &mut Lexer<'_>) -> Parsed<Initializer> {
    let (at, name) = word(lx, "an initializer")?;
    expect(lx, '(')?;
    let mut numbers = vec![float(lx)?];
    while numbers.len() < MAX_INIT_NUMBERS && accept(lx, ',') {
        numbers.push(float(lx)?);
    }
    expect(lx, ')')?;
    Initializer::from_parts(name, &numbers).ok_or_else(|| {
        let (name, n) = (clip(name), numbers.len());
        Fail::new(
            at,
            format!("unknown initializer `{name}` of {n} numbers: known are {}", Initializer::FORMS),
        )
    })
}

fn attr_value(lx: &mut Lexer<'_>, depth: usize) -> Parsed<AttrValue> {
    let at = lx.start();
    match lx.token()? {
        Token::Punct('[') => {
            if depth == MAX_NESTING {
                return Err(Fail::new(at, format!("lists are nested deeper than {MAX_NESTING}")));
            }
            let mut items = Vec::new();
            list(lx, ']', |lx| {
                if items.len() == MAX_LIST {
                    return Err(Fail::new(at, format!("the list has more than {MAX_LIST} elements")));
                }
                items.push(attr_value(lx, depth + 1)?);
                Ok(())
            })?;
            Ok(AttrValue::List(items))
        }
        Token::Str(s) => Ok(AttrValue::Word(s)),
        Token::Word(w) if is_ident(w) && w.len() <= super::MAX_NAME_BYTES => {
            Ok(AttrValue::Word(w.to_owned()))
        }
        Token::Word(w) if w.len() <= super::MAX_NAME_BYTES && matches!(Dim::parse(w), Some(Dim::Expr(_))) => {
            Ok(AttrValue::Expr(Dim::from(w)))
        }
        Token::Word(w) => {
            let digits = w.strip_prefix('-').unwrap_or(w);
            let int = w.parse().ok().filter(|_| is_number(digits));
            int.map(AttrValue::Int)
                .ok_or_else(|| Fail::new(at, format!("`{}` is neither an i64 nor a word", clip(w))))
        }
        other => Err(Fail::new(at, format!("expected an attribute's value, found {}", other.describe()))),
    }
}

/// Skips the numbers of a constant, whose type comes behind them.
fn skip_numbers(lx: &mut Lexer<'_>) -> Parsed<()> {
    if accept(lx, '[') {
        return list(lx, ']', skip_number);
    }
    let (at, splat) = word(lx, "`[` or `splat`")?;
    if splat != "splat" {
        return Err(Fail::new(at, format!("expected `[` or `splat`, found `{}`", clip(splat))));
    }
    expect(lx, '(')?;
    skip_number(lx)?;
    expect(lx, ')')
}

fn skip_number(lx: &mut Lexer<'_>) -> Parsed<()> {
    word(lx, "a number")?;
    if accept(lx, '(') {
        word(lx, "the bits of a NaN")?;
        expect(lx, ')')?;
    }
    Ok(())
}

/// The name among `known` that is nearest to `name`, if it is near.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 40 {
        return None;
    }
    let distance = |other: &str| {
        let b: Vec<char> = other.chars().collect();
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, c) in name.chars().enumerate() {
            let mut diagonal = row[0];
            row[0] = i + 1;
            for j in 0..b.len() {
                let replaced = diagonal + usize::from(c != b[j]);
                diagonal = row[j + 1];
                row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
            }
        }
        row[b.len()]
    };
    let limit = name.chars().count().div_ceil(3);
    known.map(|k| (distance(k), k)).filter(|(d, _)| *d <= limit).min_by_key(|(d, _)| *d).map(|(_, k)| k)
}

fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |k| format!(", did you mean `{k}`?"))
}

/// The operation of a line before its type is known.
enum Head<'a> {
    Op(Op),
    /// The lexer before the numbers of a constant.
    Constant(Lexer<'a>),
    /// A further result, of the type that follows.
    Result(usize),
    /// An operation on a region in which a mistake has been reported.
    Broken,
}

impl<'t> Parser<'t> {
    fn new(file: &'t str) -> Self {
        Self {
            file,
            arc_file: file.into(),
            errors: Vec::new(),
            module: Module::default(),
            states: HashMap::new(),
            functions: HashSet::new(),
            regions: HashMap::new(),
            named: false,
            splat_bytes: 0,
            body: None,
            line: 0,
            counted: Cell::default(),
        }
    }

    fn report(&mut self, text: &str, fail: &Fail) {
        self.errors.push(ParseError::new(&fail.message, self.file, self.line, text, fail.at));
    }

    fn run(mut self, text: &str) -> Result<Module, ParseErrors> {
        let mut versioned = false;
        for line in text.split('\n') {
            self.line += 1;
            let line = line.strip_suffix('\r').unwrap_or(line);
            let mut lx = Lexer::new(line);
            if matches!(lx.token(), Ok(Token::End)) {
                continue;
            }
            let lx = Lexer::new(line);
            let result = if versioned {
                self.statement(lx)
            } else {
                versioned = true;
                let result = version(lx);
                if let Err(fail) = &result {
                    self.report(line, fail);
                    break;
                }
                result
            };
            if let Err(fail) = result {
                self.report(line, &fail);
            }
            if self.errors.len() >= MAX_ERRORS {
                return Err(ParseErrors(self.errors));
            }
        }
        if !versioned {
            self.line = self.line.max(1);
            self.report("", &Fail::new(0, "expected `graphc 1`, the version of the format, as first line"));
        }
        self.unclosed();
        if !self.named && self.errors.is_empty() {
            self.report("", &Fail::new(0, "expected `module @name`"));
        }
        if self.errors.is_empty() { Ok(self.module) } else { Err(ParseErrors(self.errors)) }
    }

    /// Reports a function that is still open, at its header.
    fn unclosed(&mut self) {
        if let Some(body) = self.body.take() {
            let now = std::mem::replace(&mut self.line, body.header.0);
            let fail = Fail::new(0, format!("function `@{}` is not closed by `}}`", body.function.name));
            self.report(&body.header.1, &fail);
            self.line = now;
        }
    }

    fn statement(&mut self, mut lx: Lexer<'_>) -> Parsed<()> {
        let mut ahead = lx;
        let at = ahead.start();
        let first = ahead.token()?;
        if let (Some(_), Token::Word("fn" | "region" | "param" | "state" | "module")) = (&self.body, &first) {
            self.unclosed();
        }
        if let Some(mut body) = self.body.take() {
            let closing = first == Token::Punct('}');
            let result = if closing { self.close(&body, ahead, at) } else { self.body_line(&mut body, lx) };
            if closing && body.region {
                // After a mistake anywhere in it, what uses the region is not reported.
                let whole = body.mistakes == self.errors.len() && result.is_ok();
                let name = body.function.name.clone();
                self.regions.insert(name, whole.then(|| Region::new(body.function)));
            } else if closing {
                self.module.functions.push(body.function);
            } else {
                self.body = Some(body);
            }
            return result;
        }
        match first {
            Token::Word("module") => {
                if self.named {
                    return Err(Fail::new(at, "the module is named twice"));
                }
                self.named = true;
                self.module.name = at_name(&mut ahead)?.1.text.into();
                expect_end(&mut ahead)
            }
            _ if !self.named => {
                self.named = true;
                let message = format!("expected `module @name`, found {}", first.describe());
                Err(Fail::new(at, message))
            }
            Token::Word("param") => self.state(&mut ahead, true),
            Token::Word("state") => self.state(&mut ahead, false),
            Token::Word(keyword @ ("fn" | "region")) => {
                lx = ahead;
                self.header(&mut lx, keyword == "region")
            }
            other => {
                let message =
                    format!("expected `param`, `state`, `region` or `fn`, found {}", other.describe());
                Err(Fail::new(at, message))
            }
        }
    }

    fn state(&mut self, lx: &mut Lexer<'_>, trainable: bool) -> Parsed<()> {
        let (at, name) = value_name(lx)?;
        if !name.quoted && is_number(&name.text) {
            return Err(Fail::new(at, "digits alone number nodes: quote the name of this variable"));
        }
        let name: Arc<str> = name.text.into();
        if self.states.contains_key(&name) {
            return Err(Fail::new(at, format!("state `%{name}` is declared twice")));
        }
        if !self.module.functions.is_empty() {
            return Err(Fail::new(at, "state is declared before the functions"));
        }
        // Uses of a variable with a mistake are not reported.
        self.states.insert(name.clone(), None);
        expect(lx, ':')?;
        let ty_at = lx.start();
        let ty = tensor_type(lx)?;
        if ty.size_bytes().is_none() {
            return Err(Fail::new(ty_at, format!("the extents of state must be numbers, not {ty}")));
        }
        expect(lx, '=')?;
        let init = initializer(lx)?;
        expect_end(lx)?;
        let id = StateId(self.module.state.len() as u32);
        self.states.insert(name.clone(), Some(id));
        self.module.state.push(StateVar { name, ty, init, trainable });
        Ok(())
    }

    fn loc(&self, lx: &Lexer<'_>, at: usize) -> Option<SourceLoc> {
        // Counting goes on from the last place of the line: lines may be long.
        let (line, from, before) = self.counted.get();
        let (from, before) = if line == self.line && from <= at { (from, before) } else { (0, 0) };
        let before = before + lx.line.get(from..at).map_or(0, |text| text.chars().count());
        self.counted.set((self.line, at, before));
        let column = u32::try_from(before + 1).unwrap_or(u32::MAX);
        Some(SourceLoc { file: self.arc_file.clone(), line: self.line, column })
    }

    fn header(&mut self, lx: &mut Lexer<'_>, region: bool) -> Parsed<()> {
        let shown: String = lx.line.chars().take(1000).collect();
        let mistakes = self.errors.len();
        let mut body = Body { header: (self.line, shown), region, mistakes, ..Body::default() };
        let result = self.signature(lx, &mut body);
        body.broken = result.is_err();
        self.body = Some(body);
        result
    }

    fn signature(&mut self, lx: &mut Lexer<'_>, body: &mut Body) -> Parsed<()> {
        let (at, name) = at_name(lx)?;
        body.function.name = name.text.into();
        let name = body.function.name.clone();
        if body.region {
            if self.regions.insert(name.clone(), None).is_some() {
                return Err(Fail::new(at, format!("region `@{name}` is declared twice")));
            }
        } else if !self.functions.insert(name) {
            return Err(Fail::new(at, format!("function `@{}` is declared twice", body.function.name)));
        }
        expect(lx, '(')?;
        list(lx, ')', |lx| {
            let (at, name) = value_name(lx)?;
            if !name.quoted && is_number(&name.text) {
                return Err(Fail::new(at, "digits alone number nodes: quote the name of this input"));
            }
            self.undefined_so_far(body, at, &name)?;
            expect(lx, ':')?;
            let ty_at = lx.start();
            let op = Op::from(Input { ty: tensor_type(lx)? });
            let ty = op.infer(&[]).map_err(|e| Fail::new(ty_at, e.to_string()))?;
            let origin = Origin { name: Some(name.text.as_ref().into()), scope: None, loc: self.loc(lx, at) };
            let id = body.function.graph.push(Node { op, ty, origin }, &[]);
            body.function.inputs.push(id);
            body.values.insert((false, name.text.into_owned()), Some(id));
            Ok(())
        })?;
        expect(lx, '{')?;
        expect_end(lx)
    }

    /// Refuses to define a name that stands for something.
    fn undefined_so_far(&self, body: &Body, at: usize, name: &Name<'_>) -> Parsed<()> {
        let key = key(name);
        if body.values.contains_key(&key) {
            return Err(Fail::new(at, format!("`%{}` is defined twice in this function", name.text)));
        }
        if !key.0 && self.states.contains_key(name.text.as_ref()) {
            return Err(Fail::new(at, format!("`%{}` names a state variable", name.text)));
        }
        Ok(())
    }

    /// The node of a name; reads the state variable of that name. `None` after a mistake that has
    /// been reported.
    fn resolve(&self, lx: &Lexer<'_>, body: &mut Body, at: usize, name: &Name<'_>) -> Parsed<Value> {
        let key = key(name);
        if let Some(&value) = body.values.get(&key) {
            return Ok(value);
        }
        let state = if key.0 { None } else { self.states.get(name.text.as_ref()) };
        match state {
            Some(_) if body.region => {
                let message = format!("a region cannot read state: pass `%{}` to it as an input", name.text);
                Err(Fail::new(at, message))
            }
            Some(None) => Ok(None),
            Some(&Some(id)) => {
                if let Some(&node) = body.reads.get(&id) {
                    return Ok(Some(node));
                }
                let ty = self.module.state[id.index()].ty.clone();
                let op = Op::from(ReadState { state: id, ty });
                let ty = op.infer(&[]).map_err(|e| Fail::new(at, e.to_string()))?;
                let origin = Origin { name: None, scope: None, loc: self.loc(lx, at) };
                let node = body.function.graph.push(Node { op, ty, origin }, &[]);
                body.reads.insert(id, node);
                Ok(Some(node))
            }
            None if body.broken => Ok(None),
            None => {
                let hint = if key.0 || body.values.len() + self.states.len() > 10_000 {
                    String::new()
                } else {
                    let names = body.values.keys().filter(|k| !k.0).map(|k| k.1.as_str());
                    let mut names: Vec<&str> = names.chain(self.states.keys().map(|s| &**s)).collect();
                    names.sort_unstable();
                    suggestion(&name.text, names.into_iter())
                };
                Err(Fail::new(at, format!("`%{}` is not defined{hint}", name.text)))
            }
        }
    }

    fn close(&mut self, body: &Body, mut lx: Lexer<'_>, at: usize) -> Parsed<()> {
        expect_end(&mut lx)?;
        if body.returned || body.broken {
            return Ok(());
        }
        Err(Fail::new(at, format!("function `@{}` has no `return`", body.function.name)))
    }

    fn body_line(&mut self, body: &mut Body, mut lx: Lexer<'_>) -> Parsed<()> {
        let mut ahead = lx;
        let at = ahead.start();
        let first = ahead.token()?;
        if body.returned {
            return Err(Fail::new(at, format!("expected `}}` after `return`, found {}", first.describe())));
        }
        match first {
            Token::Value(_) => self.node(body, &mut lx),
            Token::Word("update") => self.update(body, &mut ahead),
            Token::Word("return") => {
                body.returned = true;
                self.outputs(body, &mut ahead)
            }
            other => Err(Fail::new(
                at,
                format!("expected `%name = ...`, `update`, `return` or `}}`, found {}", other.describe()),
            )),
        }
    }

    fn update(&mut self, body: &mut Body, lx: &mut Lexer<'_>) -> Parsed<()> {
        let (at, name) = value_name(lx)?;
        if body.region {
            return Err(Fail::new(at, "a region cannot update state: give the new value as an output"));
        }
        let state = if key(&name).0 { None } else { self.states.get(name.text.as_ref()).copied() };
        let Some(state) = state else {
            let hint = suggestion(&name.text, self.module.state.iter().map(|s| &*s.name));
            return Err(Fail::new(at, format!("`%{}` is not a state variable{hint}", name.text)));
        };
        expect(lx, '=')?;
        let (value_at, value) = value_name(lx)?;
        let value = self.resolve(lx, body, value_at, &value)?;
        expect_end(lx)?;
        let (Some(state), Some(value)) = (state, value) else { return Ok(()) };
        let (var, ty) = (&self.module.state[state.index()], body.function.graph.ty(value));
        if var.ty != *ty {
            let message = format!("state `%{}` is {}, its new value is {ty}", var.name, var.ty);
            return Err(Fail::new(value_at, message));
        }
        if !body.updated.insert(state) {
            return Err(Fail::new(at, format!("state `%{}` is updated twice", var.name)));
        }
        body.function.updates.push(Update { state, value });
        Ok(())
    }

    fn outputs(&mut self, body: &mut Body, lx: &mut Lexer<'_>) -> Parsed<()> {
        if matches!({ *lx }.token()?, Token::End) {
            return Ok(());
        }
        let mut seen: HashSet<Arc<str>> = HashSet::new();
        loop {
            let at = lx.start();
            let (name, value_at, value) = match lx.token()? {
                Token::Value(n) if key(&n).0 => {
                    let message = format!("the output needs a name: write `name = %{}`", n.text);
                    return Err(Fail::new(at, message));
                }
                Token::Value(n) => (Arc::from(n.text.as_ref()), at, n),
                token => {
                    let name: Arc<str> = match token {
                        Token::Word(w) if w.len() <= super::MAX_NAME_BYTES && super::is_plain_name(w) => {
                            w.into()
                        }
                        Token::Str(s) => s.into(),
                        other => {
                            let message = format!("expected an output, found {}", other.describe());
                            return Err(Fail::new(at, message));
                        }
                    };
                    expect(lx, '=')?;
                    let (value_at, value) = value_name(lx)?;
                    (name, value_at, value)
                }
            };
            let node = self.resolve(lx, body, value_at, &value)?;
            if !seen.insert(name.clone()) {
                return Err(Fail::new(at, format!("output `{name}` is declared twice")));
            }
            if let Some(node) = node {
                body.function.outputs.push(Output { name, node });
            }
            if !accept(lx, ',') {
                return expect_end(lx);
            }
        }
    }

    /// `%name = op(operands) {attributes} : type @scope`
    fn node(&mut self, body: &mut Body, lx: &mut Lexer<'_>) -> Parsed<()> {
        let (at, name) = value_name(lx)?;
        self.undefined_so_far(body, at, &name)?;
        // Uses of a node with a mistake are not reported.
        body.values.insert(key(&name), None);
        if let Some(mut node) = self.definition(body, lx)? {
            node.0.origin.loc = self.loc(lx, at);
            let named = !key(&name).0;
            node.0.origin.name = named.then(|| name.text.as_ref().into());
            let id = body.function.graph.push(node.0, &node.1);
            body.values.insert(key(&name), Some(id));
        }
        Ok(())
    }

    fn definition(&mut self, body: &mut Body, lx: &mut Lexer<'_>) -> Parsed<Option<(Node, Vec<NodeId>)>> {
        expect(lx, '=')?;
        let (op_at, mnemonic) = word(lx, "an operation")?;
        if !Op::NAMES.contains(&mnemonic) || matches!(mnemonic, Input::NAME | ReadState::NAME) {
            let known = Op::NAMES.iter().copied().filter(|n| !matches!(*n, Input::NAME | ReadState::NAME));
            let message = match mnemonic {
                Input::NAME => "inputs are declared in the header of the function".to_owned(),
                ReadState::NAME => "state is read by its name: `%name`".to_owned(),
                _ => format!("unknown operation `{}`{}", clip(mnemonic), suggestion(mnemonic, known)),
            };
            return Err(Fail::new(op_at, message));
        }
        let (mut operands, mut broken) = (Vec::new(), false);
        if accept(lx, '(') {
            list(lx, ')', |lx| {
                let (at, name) = value_name(lx)?;
                match self.resolve(lx, body, at, &name)? {
                    Some(id) => operands.push(id),
                    None => broken = true,
                }
                Ok(())
            })?;
        }
        let head = attributes(lx, op_at, mnemonic, &self.regions)?;
        expect(lx, ':')?;
        let ty_at = lx.start();
        let ty = tensor_type(lx)?;
        let op = match head {
            Head::Op(op) => op,
            Head::Constant(numbers) => Op::from(Constant { value: self.literal(numbers, &ty, ty_at)? }),
            Head::Result(index) => Op::from(ResultOf { index, ty: ty.clone() }),
            Head::Broken => return Ok(None),
        };
        let scope = if matches!({ *lx }.token()?, Token::End) {
            None
        } else {
            Some(Arc::from(at_name(lx)?.1.text.as_ref()))
        };
        expect_end(lx)?;
        if broken {
            return Ok(None);
        }
        let types: Vec<TensorType> = operands.iter().map(|&o| body.function.graph.ty(o).clone()).collect();
        let inferred = op.infer(&types).map_err(|e| Fail::new(op_at, e.to_string()))?;
        if inferred != ty {
            let message = format!("the result of `{mnemonic}` is {inferred}, not {ty}");
            return Err(Fail::new(ty_at, message));
        }
        if let Op::ResultOf(r) = &op {
            let of = operands[0];
            let graph = &body.function.graph;
            let types: Vec<TensorType> = graph.operands(of).iter().map(|&o| graph.ty(o).clone()).collect();
            let results = graph.op(of).results(&types).map_err(|e| Fail::new(op_at, e.to_string()))?;
            match results.get(r.index) {
                Some(result) if *result == ty && r.index > 0 => {}
                Some(result) if r.index > 0 => {
                    let message = format!("result {} of `{}` is {result}", r.index, graph.op(of).name());
                    return Err(Fail::new(ty_at, message));
                }
                _ => {
                    let (name, n) = (graph.op(of).name(), results.len());
                    let message = format!("`{name}` has {n} results: `index` is from 1 to below {n}");
                    return Err(Fail::new(op_at, message));
                }
            }
        }
        Ok(Some((Node { op, ty, origin: Origin { name: None, scope, loc: None } }, operands)))
    }

    /// The elements of a constant of type `ty`.
    fn literal(&mut self, mut lx: Lexer<'_>, ty: &TensorType, ty_at: usize) -> Parsed<Literal> {
        let (Some(dims), Some(n)) = (ty.shape.as_static(), ty.shape.num_elements()) else {
            return Err(Fail::new(ty_at, format!("the extents of a constant must be numbers, not {ty}")));
        };
        let at = lx.start();
        if !accept(&mut lx, '[') {
            word(&mut lx, "`[` or `splat`")?;
            expect(&mut lx, '(')?;
            let value = scalar(&mut lx, ty.dtype)?;
            let bytes = n.saturating_mul(ty.dtype.size_bytes()).saturating_add(self.splat_bytes);
            if bytes > MAX_SPLAT_BYTES {
                let message = "`splat` constants of more than 256 MiB in all: use `broadcast` of a scalar";
                return Err(Fail::new(at, message));
            }
            self.splat_bytes = bytes;
            return Ok(Literal::full(&dims, value));
        }
        macro_rules! collect {
            ($variant:ident) => {{
                let mut values = Vec::new();
                list(&mut lx, ']', |lx| {
                    if let Scalar::$variant(v) = scalar(lx, ty.dtype)? {
                        values.push(v);
                    }
                    Ok(())
                })?;
                let given = values.len();
                Literal::new(&dims, values)
                    .ok_or_else(|| Fail::new(at, format!("{given} elements for {ty}, which has {n}")))
            }};
        }
        match ty.dtype {
            DType::F32 => collect!(F32),
            DType::F64 => collect!(F64),
            DType::I32 => collect!(I32),
            DType::I64 => collect!(I64),
            DType::Bool => collect!(Bool),
            DType::U8 => collect!(U8),
            DType::BF16 => collect!(BF16),
            DType::F16 => collect!(F16),
        }
    }
}

/// The key of a name among the values of a function.
fn key(name: &Name<'_>) -> (bool, String) {
    (!name.quoted && is_number(&name.text), name.text.to_string())
}

/// `{name = value, ...}`, if there is one, as the operation of that mnemonic.
fn attributes<'a>(
    lx: &mut Lexer<'a>,
    op_at: usize,
    mnemonic: &str,
    regions: &HashMap<Arc<str>, Option<Region>>,
) -> Parsed<Head<'a>> {
    let mut broken = false;
    let mut attrs = AttrMap::default();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut numbers = None;
    if accept(lx, '{') && !accept(lx, '}') {
        loop {
            let (at, name) = word(lx, "an attribute")?;
            if places.len() == 64 || !is_ident(name) || name.len() > super::MAX_NAME_BYTES {
                return Err(Fail::new(at, format!("`{}` is not an attribute", clip(name))));
            }
            if places.insert(name.to_owned(), at).is_some() {
                return Err(Fail::new(at, format!("attribute `{name}` is given twice")));
            }
            expect(lx, '=')?;
            if mnemonic == Constant::NAME && name == "value" {
                numbers = Some(*lx);
                skip_numbers(lx)?;
            } else if matches!({ *lx }.token(), Ok(Token::At(_))) {
                let (at, region) = at_name(lx)?;
                match regions.get(region.text.as_ref()) {
                    Some(Some(region)) => {
                        attrs.0.insert(name.to_owned(), AttrValue::Region(region.clone()));
                    }
                    Some(None) => broken = true,
                    None => {
                        let mut known: Vec<&str> = regions.keys().map(|r| &**r).collect();
                        known.sort_unstable();
                        let hint = suggestion(&region.text, known.into_iter());
                        let message = format!("region `@{}` is not declared above{hint}", region.text);
                        return Err(Fail::new(at, message));
                    }
                }
            } else {
                attrs.0.insert(name.to_owned(), attr_value(lx, 0)?);
            }
            if !accept(lx, ',') {
                break;
            }
        }
        expect(lx, '}')?;
    }
    if broken {
        return Ok(Head::Broken);
    }
    let (head, known) = if mnemonic == ResultOf::NAME {
        let index = attrs.take("index").map_err(|e| Fail::new(op_at, format!("{mnemonic}: {e}")))?;
        (Head::Result(index), vec!["index"])
    } else if mnemonic == Constant::NAME {
        let numbers = numbers.ok_or_else(|| Fail::new(op_at, "attribute `value` is missing"))?;
        (Head::Constant(numbers), vec!["value"])
    } else {
        let op = match Op::parse(mnemonic, &mut attrs) {
            Some(Ok(op)) => op,
            Some(Err(e)) => {
                let unknown: Vec<String> = attrs.0.keys().map(|k| format!("`{k}`")).collect();
                let given = if unknown.is_empty() {
                    String::new()
                } else {
                    format!("; given: {}", unknown.join(", "))
                };
                return Err(Fail::new(op_at, format!("{mnemonic}: {e}{given}")));
            }
            None => return Err(Fail::new(op_at, format!("unknown operation `{mnemonic}`"))),
        };
        let known = op.attrs().into_iter().map(|(k, _)| k).collect();
        (Head::Op(op), known)
    };
    if let Some(unknown) = attrs.0.keys().next() {
        let known: Vec<String> = known.iter().map(|k| format!("`{k}`")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let at = places.get(unknown).copied().unwrap_or(op_at);
        return Err(Fail::new(at, format!("`{mnemonic}` has no attribute `{unknown}`; it has {known}")));
    }
    Ok(head)
}

/// `graphc 1`
fn version(mut lx: Lexer<'_>) -> Parsed<()> {
    let at = lx.start();
    let expected = || Fail::new(at, "expected `graphc 1`, the version of the format, as first line");
    match lx.token() {
        Ok(Token::Word("graphc")) => {}
        _ => return Err(expected()),
    }
    let (at, number) = word(&mut lx, "the version of the format")?;
    if number != FORMAT_VERSION.to_string() {
        let message = format!("version `{}` is not supported, only {FORMAT_VERSION} is", clip(number));
        return Err(Fail::new(at, message));
    }
    expect_end(&mut lx)
}
