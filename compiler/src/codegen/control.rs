//! Kernels with regions: functions that run the programs of regions, each with a context of its own in
//! the workspace of the kernel. Step by step they only move pointers: elements of sequences are read
//! and stacked values written where they are, carries alternate between two places or lie among the
//! stacked values.

use super::functions::{address, flags};
use crate::kernel::KernelBody;
use crate::program::{Body, Control, ControlKind, Program, Stacked};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, BlockArg, FuncRef, InstBuilder, Value, types};
use cranelift_frontend::FunctionBuilder;
use graphc_runtime::abi;

/// Emits the function of kernel `k`; `entries` are those of its regions. It takes the context and
/// returns a status like an entry.
pub(super) fn emit(b: &mut FunctionBuilder<'_>, program: &Program, k: usize, entries: &[FuncRef]) {
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let cx = b.block_params(entry)[0];
    let KernelBody::Region { operands, results, workspace } = &program.kernels[k].body else {
        unreachable!("only kernels with regions have a control")
    };
    let mut at = |buffer: &u32| address(b, cx, &program.buffers[*buffer as usize]);
    let operands: Vec<Value> = operands.iter().map(&mut at).collect();
    let results: Vec<Value> = results.iter().map(&mut at).collect();
    let workspace = at(&workspace.expect("memory has been assigned"));
    let failed = b.create_block();
    let status = b.append_block_param(failed, types::I32);
    let nested = b.append_block_param(failed, types::I64);
    let control = &program.controls[&k];
    let mut e = Emit { b, cx, workspace, control, entries, failed };
    let contexts: Vec<Value> = control.bodies.iter().map(|body| e.context(body)).collect();
    match &control.kind {
        ControlKind::Call => e.call(0, contexts[0], &operands, &results),
        ControlKind::Cond => e.cond(&contexts, &operands, &results),
        ControlKind::While { carries } => e.while_loop(&contexts, *carries, &operands, &results),
        ControlKind::Scan { length, carries, sequences, reverse, stacked } => {
            let counts = (*length, *carries, *sequences);
            e.scan(contexts[0], counts, *reverse, stacked, &operands, &results);
        }
    }
    let ok = b.ins().iconst(types::I32, 0);
    b.ins().return_(&[ok]);
    // What went wrong in a region went wrong here.
    b.switch_to_block(failed);
    for offset in [abi::OFFSET_ERROR_NODE, abi::OFFSET_ERROR_POSITION, abi::OFFSET_ERROR_VALUE] {
        let value = b.ins().load(types::I64, flags(), nested, offset);
        b.ins().store(flags(), value, cx, offset);
    }
    b.ins().return_(&[status]);
    b.seal_all_blocks();
}

struct Emit<'a, 'b> {
    b: &'a mut FunctionBuilder<'b>,
    cx: Value,
    workspace: Value,
    control: &'a Control,
    entries: &'a [FuncRef],
    /// Takes a status and the context of a region that has failed.
    failed: Block,
}

impl Emit<'_, '_> {
    fn number(&mut self, n: usize) -> Value {
        self.b.ins().iconst(types::I64, n as i64)
    }

    /// An address in the workspace.
    fn place(&mut self, offset: usize) -> Value {
        self.b.ins().iadd_imm_s(self.workspace, offset as i64)
    }

    /// Fills the context of a region; its pointers to inputs and outputs are set later.
    fn context(&mut self, body: &Body) -> Value {
        let nested = self.place(body.context);
        for (offset, place) in [
            (abi::OFFSET_ARENA, body.arena),
            (abi::OFFSET_INPUTS, body.inputs),
            (abi::OFFSET_OUTPUTS, body.outputs),
        ] {
            let address = self.place(place);
            self.b.ins().store(flags(), address, nested, offset);
        }
        let constants = self.b.ins().load(types::I64, flags(), self.cx, abi::OFFSET_CONSTANTS);
        let constants = self.b.ins().iadd_imm_s(constants, body.constants as i64);
        self.b.ins().store(flags(), constants, nested, abi::OFFSET_CONSTANTS);
        for offset in [
            abi::OFFSET_STATE,
            abi::OFFSET_PARALLEL_FOR,
            abi::OFFSET_POOL,
            abi::OFFSET_RECORD_FAULT,
            abi::OFFSET_INTERRUPT,
            abi::OFFSET_OBSERVE,
            abi::OFFSET_OBSERVER,
        ] {
            let value = self.b.ins().load(types::I64, flags(), self.cx, offset);
            self.b.ins().store(flags(), value, nested, offset);
        }
        let zero = self.number(0);
        for offset in [abi::OFFSET_ERROR_NODE, abi::OFFSET_ERROR_POSITION, abi::OFFSET_ERROR_VALUE] {
            self.b.ins().store(flags(), zero, nested, offset);
        }
        nested
    }

    fn set_input(&mut self, body: usize, input: usize, pointer: Value) {
        let at = self.control.bodies[body].inputs + 8 * input;
        self.b.ins().store(flags(), pointer, self.workspace, at as i32);
    }

    fn set_output(&mut self, body: usize, output: usize, pointer: Value) {
        let at = self.control.bodies[body].outputs + 8 * output;
        self.b.ins().store(flags(), pointer, self.workspace, at as i32);
    }

    /// Runs a region whose pointers are set; leaves the function if it fails.
    fn run(&mut self, body: usize, context: Value) {
        let call = self.b.ins().call(self.entries[body], &[context]);
        let status = self.b.inst_results(call)[0];
        let next = self.b.create_block();
        self.b.ins().brif(status, self.failed, &[status.into(), context.into()], next, &[]);
        self.b.switch_to_block(next);
    }

    fn call(&mut self, body: usize, context: Value, inputs: &[Value], outputs: &[Value]) {
        inputs.iter().enumerate().for_each(|(i, &p)| self.set_input(body, i, p));
        outputs.iter().enumerate().for_each(|(i, &p)| self.set_output(body, i, p));
        self.run(body, context);
    }

    fn cond(&mut self, contexts: &[Value], operands: &[Value], results: &[Value]) {
        let flag = self.b.ins().load(types::I8, flags(), operands[0], 0);
        let [then, otherwise, done] = [(); 3].map(|()| self.b.create_block());
        self.b.ins().brif(flag, then, &[], otherwise, &[]);
        for (body, block) in [then, otherwise].into_iter().enumerate() {
            self.b.switch_to_block(block);
            self.call(body, contexts[body], &operands[1..], results);
            self.b.ins().jump(done, &[]);
        }
        self.b.switch_to_block(done);
    }

    /// Leaves the function if the run is to end.
    fn check_interrupt(&mut self, context: Value) {
        let pointer = self.b.ins().load(types::I64, flags(), self.cx, abi::OFFSET_INTERRUPT);
        let flag = self.b.ins().load(types::I8, flags(), pointer, 0);
        let status = self.b.ins().iconst(types::I32, i64::from(abi::INTERRUPTED));
        let next = self.b.create_block();
        self.b.ins().brif(flag, self.failed, &[status.into(), context.into()], next, &[]);
        self.b.switch_to_block(next);
    }

    fn scan(
        &mut self,
        context: Value,
        (length, carries, sequences): (usize, usize, usize),
        reverse: bool,
        stacked: &[Stacked],
        operands: &[Value],
        results: &[Value],
    ) {
        let body = &self.control.bodies[0];
        let g = &body.function.graph;
        let bytes = |node| g.ty(node).size_bytes().expect("regions are bound");
        let elements: Vec<usize> =
            body.function.inputs[carries..carries + sequences].iter().map(|&i| bytes(i)).collect();
        let outputs: Vec<usize> = body.function.outputs.iter().map(|o| bytes(o.node)).collect();
        // For each carry the stacked value that it lies in, by number.
        let among = |c: usize| {
            let is = |s: &Stacked| matches!(*s, Stacked::Next(own) | Stacked::Before(own) if own == c);
            stacked.iter().position(is).map(|s| (results[carries + s], stacked[s]))
        };
        let homes: Vec<Option<(Value, Stacked)>> = (0..carries).map(among).collect();
        let mut start = vec![self.number(0)];
        for (c, home) in homes.iter().enumerate() {
            start.push(match *home {
                Some((base, Stacked::Before(_))) => {
                    let first = if reverse { (length - 1) * outputs[c] } else { 0 };
                    let place = self.b.ins().iadd_imm_s(base, first as i64);
                    self.copy(operands[c], place, outputs[c]);
                    place
                }
                _ => operands[c],
            });
        }
        for (i, &pointer) in operands.iter().enumerate().skip(carries + sequences) {
            self.set_input(0, i, pointer);
        }
        let (head, done) = (self.b.create_block(), self.b.create_block());
        let step = self.b.append_block_param(head, types::I64);
        let current: Vec<Value> = (0..carries).map(|_| self.b.append_block_param(head, types::I64)).collect();
        let start: Vec<BlockArg> = start.into_iter().map(BlockArg::from).collect();
        self.b.ins().jump(head, &start);
        self.b.switch_to_block(head);
        self.check_interrupt(context);
        let last = self.number(length - 1);
        let t = if reverse { self.b.ins().isub(last, step) } else { step };
        let is_last = self.b.ins().icmp(IntCC::Equal, step, last);
        let odd = self.b.ins().band_imm_s(step, 1);
        let mut next = Vec::with_capacity(carries);
        for (i, &pointer) in current.iter().enumerate() {
            self.set_input(0, i, pointer);
            let size = outputs[i] as i64;
            let to = match homes[i] {
                Some((base, Stacked::Next(_))) => {
                    let offset = self.b.ins().imul_imm_s(t, size);
                    self.b.ins().iadd(base, offset)
                }
                Some(_) => {
                    let other = self.b.ins().iadd_imm_s(pointer, if reverse { -size } else { size });
                    self.b.ins().select(is_last, results[i], other)
                }
                None => {
                    let [a, b] = [0, 1].map(|k| self.place(self.control.slots[2 * i + k]));
                    let other = self.b.ins().select(odd, b, a);
                    self.b.ins().select(is_last, results[i], other)
                }
            };
            self.set_output(0, i, to);
            next.push(to);
        }
        for (i, &size) in elements.iter().enumerate() {
            let offset = self.b.ins().imul_imm_s(t, size as i64);
            let pointer = self.b.ins().iadd(operands[carries + i], offset);
            self.set_input(0, carries + i, pointer);
        }
        for (i, source) in stacked.iter().enumerate() {
            let Stacked::Output(output) = *source else { continue };
            let offset = self.b.ins().imul_imm_s(t, outputs[output] as i64);
            let pointer = self.b.ins().iadd(results[carries + i], offset);
            self.set_output(0, output, pointer);
        }
        self.run(0, context);
        let following = self.b.ins().iadd_imm_s(step, 1);
        let again: Vec<BlockArg> = std::iter::once(following).chain(next).map(BlockArg::from).collect();
        self.b.ins().brif(is_last, done, &[], head, &again);
        self.b.switch_to_block(done);
        for (c, home) in homes.iter().enumerate() {
            if let Some((base, Stacked::Next(_))) = *home {
                let last = if reverse { 0 } else { (length - 1) * outputs[c] };
                let place = self.b.ins().iadd_imm_s(base, last as i64);
                self.copy(place, results[c], outputs[c]);
            }
        }
    }

    fn while_loop(&mut self, contexts: &[Value], carries: usize, operands: &[Value], results: &[Value]) {
        let body = &self.control.bodies[1];
        let g = &body.function.graph;
        let sizes: Vec<usize> = body.function.outputs[..carries]
            .iter()
            .map(|o| g.ty(o.node).size_bytes().expect("regions are bound"))
            .collect();
        for (i, &pointer) in operands.iter().enumerate().skip(carries) {
            self.set_input(0, i, pointer);
            self.set_input(1, i, pointer);
        }
        let flag = self.place(self.control.slots[2 * carries]);
        self.set_output(0, 0, flag);
        let (head, go_on, done) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let step = self.b.append_block_param(head, types::I64);
        let current: Vec<Value> = (0..carries).map(|_| self.b.append_block_param(head, types::I64)).collect();
        let zero = self.number(0);
        let start: Vec<BlockArg> =
            std::iter::once(zero).chain(operands[..carries].iter().copied()).map(BlockArg::from).collect();
        self.b.ins().jump(head, &start);
        self.b.switch_to_block(head);
        self.check_interrupt(contexts[0]);
        for (i, &pointer) in current.iter().enumerate() {
            self.set_input(0, i, pointer);
            self.set_input(1, i, pointer);
        }
        self.run(0, contexts[0]);
        let holds = self.b.ins().load(types::I8, flags(), flag, 0);
        self.b.ins().brif(holds, go_on, &[], done, &[]);
        self.b.switch_to_block(go_on);
        let odd = self.b.ins().band_imm_s(step, 1);
        let mut again = vec![BlockArg::from(self.b.ins().iadd_imm_s(step, 1))];
        for i in 0..carries {
            let (a, b) = (self.place(self.control.slots[2 * i]), self.place(self.control.slots[2 * i + 1]));
            let to = if fault!(44) { a } else { self.b.ins().select(odd, b, a) };
            self.set_output(1, i, to);
            again.push(to.into());
        }
        self.run(1, contexts[1]);
        self.b.ins().jump(head, &again);
        self.b.switch_to_block(done);
        for ((&from, &to), &bytes) in current.iter().zip(results).zip(&sizes) {
            self.copy(from, to, bytes);
        }
    }

    /// Copies memory: eight bytes at a time, then the rest.
    fn copy(&mut self, from: Value, to: Value, bytes: usize) {
        let whole = bytes / 8 * 8;
        for (ty, size, begin, end) in [(types::I64, 8, 0, whole), (types::I8, 1, whole, bytes)] {
            if begin == end || fault!(43) && size == 1 {
                continue;
            }
            let (head, done) = (self.b.create_block(), self.b.create_block());
            let i = self.b.append_block_param(head, types::I64);
            let (begin, end) = (self.number(begin), self.number(end));
            self.b.ins().jump(head, &[begin.into()]);
            self.b.switch_to_block(head);
            let (source, target) = (self.b.ins().iadd(from, i), self.b.ins().iadd(to, i));
            let value = self.b.ins().load(ty, flags(), source, 0);
            self.b.ins().store(flags(), value, target, 0);
            let next = self.b.ins().iadd_imm_s(i, size);
            let more = self.b.ins().icmp(IntCC::UnsignedLessThan, next, end);
            self.b.ins().brif(more, head, &[next.into()], done, &[]);
            self.b.switch_to_block(done);
        }
    }
}
