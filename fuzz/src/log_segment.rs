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
    let link = bytes.get(format::BLOCK..).expect("a segment without a link");
    let link = format::decode_link(link, &header).expect("records of a segment that has not begun");
    let identity = format::Identity::of(&header);
    for (i, record) in records.iter().enumerate() {
        assert_eq!(record.seq, link.first_seq + i as u64, "records are not contiguous");
        assert_eq!(record.epoch, header.epoch);
    }
    if !records.is_empty() {
        let first = bytes.get(format::DATA_START as usize..).expect("records without a block");
        let block = format::decode_block(first, &identity, format::DATA_START);
        assert!(block.is_ok(), "records from a block that fails its checks");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_zstd_record_that_was_found_is_met_still() {
        let found = include_bytes!("../corpus/log_segment/found-long-zstd-record");
        let error = decode_segment(&compact::expand(&found[1..])).expect_err("a record of 4 GiB").to_string();
        assert!(error.contains("expected 4294964664 bytes of zstd"), "{error}");
    }
}
