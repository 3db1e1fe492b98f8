//! Damage to sound files: what a device, a file system or a person can do to them.

use std::path::PathBuf;

use crate::input::Input;

/// Files by path.
pub type Files = Vec<(PathBuf, Vec<u8>)>;

/// Reads patches from the input until it ends and applies them.
pub fn apply(files: &mut Files, input: &mut Input<'_>, unit: usize) {
    while !input.is_empty() && !files.is_empty() {
        let (kind, which) = (input.u8(), usize::from(input.u8()) % files.len());
        let at = input.u32() as usize;
        let other = usize::from(input.u8()) % files.len();
        let source = files[other].1.clone();
        let bytes = &mut files[which].1;
        let in_range = at.min(bytes.len());
        let block = in_range / unit * unit;
        match kind % 8 {
            // Bits flip.
            0 | 1 => {
                let with = input.u8();
                if let Some(byte) = bytes.get_mut(in_range) {
                    *byte ^= with;
                }
            }
            // A write that never came.
            2 => bytes[block..].iter_mut().take(unit).for_each(|b| *b = 0),
            // A misdirected or stale one: a unit of this or another file.
            3 => {
                let from = usize::from(input.u8()) * unit;
                let copied = source.get(from..).unwrap_or_default();
                bytes[block..].iter_mut().zip(copied.iter().take(unit)).for_each(|(to, from)| *to = *from);
            }
            // Bytes of the fuzzer's own.
            4 => {
                let with = input.counted();
                bytes[in_range..].iter_mut().zip(with).for_each(|(to, from)| *to = *from);
            }
            5 => bytes.truncate(in_range),
            6 => bytes.extend(input.counted()),
            // A file is lost, or stands under another's name.
            _ if at.is_multiple_of(2) => drop(files.remove(which)),
            _ => files[which].1 = source,
        }
    }
}
