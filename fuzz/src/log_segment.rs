//! One segment's bytes: decoding gives records or an error.
//!
//! The first byte says how the rest is meant: even = a segment file as it is, odd = a compact one ([`crate::compact`]).

use backstay_storage::log::{decode_segment, format};

use crate::compact;

pub fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let expanded;
    let bytes = if mode % 2 == 0 {
        rest
    } else {
        expanded = compact::expand(rest);
        &expanded
    };
    let header = format::decode_header(bytes);
    let _ = format::decode_record_head(rest);
    let Ok(records) = decode_segment(bytes) else { return };
    let header = header.expect("records of a segment without a header");
    let identity = format::Identity::of(&header);
    for (i, record) in records.iter().enumerate() {
        assert_eq!(record.seq, header.first_seq + i as u64, "records are not contiguous");
        assert_eq!(record.epoch, header.epoch);
    }
    if !records.is_empty() {
        let first = bytes.get(4096..).expect("records without a block");
        assert!(format::decode_block(first, &identity, 4096).is_ok(), "records from a block that fails its checks");
    }
}
