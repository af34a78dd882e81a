//! Event files of TensorBoard: TFRecords (<https://www.tensorflow.org/tutorials/load_data/tfrecord>) of `Event` messages with scalar
//! summaries. The two messages are a few fields, encoded here.

use super::EpochRecord;

/// The file: a version, then the scalars of each epoch.
pub(super) fn events(history: &[EpochRecord]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut time = 0.0;
    // Event.file_version = 3.
    record(&mut file, &bytes(3, b"brain.Event:2"));
    for r in history {
        time += r.seconds;
        let scalars = [("loss", r.loss), ("learning_rate", r.learning_rate)];
        let metrics = r.metrics.iter().map(|(name, value)| (name.as_str(), *value));
        let values: Vec<u8> = scalars.into_iter().chain(metrics).flat_map(|(tag, v)| value(tag, v)).collect();
        // Event.summary = 5.
        record(&mut file, &[event(time, r.step), bytes(5, &values)].concat());
    }
    file
}

/// Event.wall_time = 1, Event.step = 2.
fn event(wall_time: f64, step: u64) -> Vec<u8> {
    [&[0x09][..], &wall_time.to_le_bytes(), &[0x10], &varint(step)].concat()
}

/// Summary.value = 1, with Value.tag = 1 and Value.simple_value = 2.
fn value(tag: &str, number: f64) -> Vec<u8> {
    bytes(1, &[&bytes(1, tag.as_bytes())[..], &[0x15], &(number as f32).to_le_bytes()].concat())
}

/// A field of bytes.
fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    [&[field << 3 | 2][..], &varint(content.len() as u64), content].concat()
}

fn varint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

/// Length and content, each followed by its masked checksum.
fn record(file: &mut Vec<u8>, content: &[u8]) {
    let length = (content.len() as u64).to_le_bytes();
    for part in [&length[..], content] {
        file.extend_from_slice(part);
        file.extend_from_slice(&masked(crc32c::crc32c(part)).to_le_bytes());
    }
}

fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// What TensorBoard's own `RecordWriter` and `Event` give.
    #[test]
    fn bytes_of_a_record() {
        let record = EpochRecord {
            epoch: 0,
            step: 300,
            loss: 0.5,
            learning_rate: 0.25,
            rows: 10,
            seconds: 2.0,
            metrics: BTreeMap::from([("accuracy".to_owned(), 0.75)]),
        };
        let file = events(&[record]);
        let hex: String = file.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, EXPECTED);
    }

    const EXPECTED: &str = "0f000000000000006d532b091a0d627261696e2e4576656e743a32fc985129420000000000000079f36eaa09000000000000\
        004010ac022a340a0b0a046c6f7373150000003f0a140a0d6c6561726e696e675f72617465150000803e0a0f0a0861636375\
        72616379150000403fab827747";
}
