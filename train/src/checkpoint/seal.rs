//! Checksums of a checkpoint: one of each tensor's bytes, and one of all that the header says, so that no
//! change of a bit goes unseen. They are CRC-32C, in the metadata of the file, where other readers of
//! safetensors look past them.

use super::{KEY, Tensor, shown_name};
use safetensors::tensor::{SafeTensors, View};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seal {
    /// Of the note, and of names, types, extents and checksums of all tensors.
    crc32c: u32,
    note: Option<String>,
    tensors: BTreeMap<String, u32>,
}

/// How the text of a seal begins: known even if its key is damaged.
const START: &str = "{\"crc32c\":";

/// The checksum of what a header says.
fn whole(note: Option<&str>, tensors: &BTreeMap<String, u32>, types: &BTreeMap<&str, String>) -> u32 {
    let start = crc32c::crc32c(format!("{note:?}\n").as_bytes());
    tensors.iter().fold(start, |crc, (name, sum)| {
        let ty = types.get(name.as_str()).map_or("", String::as_str);
        crc32c::crc32c_append(crc, format!("{name:?} {ty} {sum}\n").as_bytes())
    })
}

fn type_of(view: &impl View) -> String {
    format!("{:?}{:?}", view.dtype(), view.shape())
}

/// The text to be kept with these tensors.
pub(super) fn seal(tensors: &[Tensor<'_>], note: Option<&str>) -> String {
    let sums = tensors.iter().map(|t| (t.name.to_string(), crc32c::crc32c(&t.bytes))).collect();
    let types = tensors.iter().map(|t| (&*t.name, type_of(&t))).collect();
    let seal = Seal { crc32c: whole(note, &sums, &types), note: note.map(str::to_owned), tensors: sums };
    serde_json::to_string(&seal).expect("numbers and texts can be written as JSON")
}

/// The note of a file whose tensors are as they were saved. Files of other writers have neither note nor checksums.
///
/// # Errors
/// What is damaged.
pub(super) fn open(
    metadata: Option<&HashMap<String, String>>,
    file: &SafeTensors<'_>,
) -> Result<Option<String>, String> {
    let metadata = metadata.into_iter().flatten();
    let Some((key, text)) = metadata.into_iter().find(|(k, v)| *k == KEY || v.starts_with(START)) else {
        return Ok(None);
    };
    let seal: Option<Seal> = serde_json::from_str(text).ok();
    let seal = seal.filter(|_| key == KEY).ok_or("the checksums cannot be read")?;
    let types = file.iter().map(|(name, view)| (name, type_of(&view))).collect::<BTreeMap<_, _>>();
    if types.len() != seal.tensors.len() || whole(seal.note.as_deref(), &seal.tensors, &types) != seal.crc32c
    {
        return Err("the header does not have its checksum".to_owned());
    }
    for (name, view) in file.iter() {
        if seal.tensors.get(name) != Some(&crc32c::crc32c(view.data())) {
            return Err(format!("tensor {} does not have its checksum", shown_name(name)));
        }
    }
    Ok(seal.note)
}
