//! Machine code as text.

use std::fmt::Write as _;

/// x86-64 machine code in Intel syntax, one instruction a line, with a label at each jump target and
/// `notes` (offset, text) as comments. Constants that follow the last `ret` are left out. Other
/// machines' code is shown as bytes.
pub fn disassemble(code: &[u8], notes: &[(usize, String)]) -> String {
    if cfg!(not(target_arch = "x86_64")) {
        return code
            .chunks(16)
            .map(|c| c.iter().map(|b| format!("{b:02x} ")).collect::<String>() + "\n")
            .collect();
    }
    x86(code, notes)
}

fn x86(code: &[u8], notes: &[(usize, String)]) -> String {
    use iced_x86::{Decoder, DecoderOptions, FlowControl, Formatter, Instruction, IntelFormatter};
    let instructions: Vec<Instruction> = Decoder::with_ip(64, code, 0, DecoderOptions::NONE).iter().collect();
    let last = instructions.iter().rposition(|i| i.flow_control() == FlowControl::Return);
    let instructions = &instructions[..last.map_or(instructions.len(), |l| l + 1)];
    let mut targets: Vec<u64> = instructions
        .iter()
        .filter(|i| {
            matches!(i.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch)
        })
        .map(Instruction::near_branch_target)
        .collect();
    targets.sort_unstable();
    targets.dedup();
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_first_operand_char_index(10);
    let mut text = String::new();
    for i in instructions {
        for (_, note) in notes.iter().filter(|n| n.0 as u64 == i.ip()) {
            let _ = writeln!(text, "  ; {note}");
        }
        if let Ok(n) = targets.binary_search(&i.ip()) {
            let _ = writeln!(text, ".L{n}:");
        }
        let mut line = String::new();
        let label = targets.binary_search(&i.near_branch_target());
        match (i.flow_control(), label) {
            (FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch, Ok(n)) => {
                let mnemonic = format!("{:?}", i.mnemonic()).to_lowercase();
                let _ = write!(line, "{mnemonic:<10}.L{n}");
            }
            _ => formatter.format(i, &mut line),
        }
        let _ = writeln!(text, "  {:6x}  {line}", i.ip());
    }
    text
}
