use super::*;

fn header() -> Header {
    Header {
        store_id: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
        segment: 2,
        epoch: 3,
        segment_bytes: 5 * BLOCK_BYTES,
        window: BLOCK_BYTES,
    }
}

fn link() -> Link {
    Link { first_seq: 5, prev_len: 3 * BLOCK_BYTES }
}

fn link_block(link: Link) -> Vec<u8> {
    let mut block = vec![0xaa; BLOCK];
    link.encode(&mut block, &header());
    block
}

fn commit(start: u64, blocks: u32) -> Commit {
    Commit { start, blocks, first_seq: 5, records: 1, promised: LINK_AT }
}

/// A record of `len` bytes, framed.
fn stream(len: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    let head = RecordHead { seq: 5, stored: len as u32, raw: len as u32, zstd: false };
    encode_record(&mut stream, head, &vec![7; len]);
    stream
}

#[test]
fn a_header_is_read_back() {
    assert_eq!(decode_header(&header().encode()), Ok(header()));
}

#[test]
fn a_link_is_read_back_in_its_own_segment_only() {
    let block = link_block(link());
    assert_eq!(decode_link(&block, &header()), Ok(link()));
    for other in
        [Header { epoch: 4, ..header() }, Header { segment: 3, ..header() }, Header { store_id: 1, ..header() }]
    {
        assert!(decode_link(&block, &other).is_err_and(|f| f.expected.starts_with("checksum")), "{other:?}");
    }
    for bit in 0..BLOCK * 8 {
        let mut bad = block.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        decode_link(&bad, &header()).expect_err(&format!("bit {bit}"));
    }
    let wrong = [
        Link { first_seq: 0, ..link() },
        Link { first_seq: u64::MAX, ..link() },
        Link { prev_len: 0, ..link() },
        Link { prev_len: BLOCK_BYTES, ..link() },
        Link { prev_len: 13_000, ..link() },
    ];
    for link in wrong {
        let fault = decode_link(&link_block(link), &header()).expect_err("a link that cannot be");
        assert_eq!(fault.expected, "consistent fields", "{link:?}");
    }
}

#[test]
fn every_flipped_bit_of_a_header_is_found() {
    let good = header().encode();
    for bit in 0..BLOCK * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let fault = decode_header(&bad).expect_err(&format!("bit {bit}"));
        assert!(!fault.unsupported, "bit {bit}: a flipped bit is damage, not a new version");
    }
}

#[test]
fn a_header_of_another_version_is_not_damage() {
    let mut bytes = header().encode();
    bytes[8] = 3;
    let sum = xxh3_64(&bytes[..BLOCK - 8]).to_le_bytes();
    bytes[BLOCK - 8..].copy_from_slice(&sum);
    let error = decode_header(&bytes).unwrap_err().at("x.seg".as_ref(), 0);
    assert_eq!(
        error.to_string(),
        "x.seg has log format version 3, this version reads 2; use the version that wrote it"
    );
}

#[test]
fn a_header_that_says_what_cannot_be_is_refused() {
    let wrong = [
        Header { segment: 0, ..header() },
        Header { segment: u64::MAX, ..header() },
        Header { epoch: u64::MAX, ..header() },
        Header { segment_bytes: 0, ..header() },
        Header { segment_bytes: BLOCK_BYTES + 1, ..header() },
        Header { segment_bytes: BLOCK_BYTES, ..header() },
    ];
    for header in wrong {
        assert!(decode_header(&header.encode()).is_err_and(|f| f.expected == "consistent fields"), "{header:?}");
    }
}

#[test]
fn blocks_are_read_back() {
    let (identity, stream) = (Identity::of(&header()), stream(PAYLOAD));
    let commit = commit(3 * BLOCK_BYTES, 2);
    let bytes = encode_commit(&stream, &commit, &identity);
    assert_eq!(bytes.len(), 2 * BLOCK);
    let mut back = Vec::new();
    for (index, (block, offset)) in bytes.chunks(BLOCK).zip([3 * BLOCK_BYTES, 4 * BLOCK_BYTES]).enumerate() {
        let block = decode_block(block, &identity, offset).unwrap();
        assert_eq!((block.commit, block.index), (commit, index as u32));
        back.extend_from_slice(block.payload);
    }
    assert_eq!(back, stream);
    assert_eq!(
        decode_record_head(&back),
        Ok(RecordHead { seq: 5, stored: PAYLOAD as u32, raw: PAYLOAD as u32, zstd: false })
    );
}

#[test]
fn every_flipped_bit_of_a_block_is_found() {
    let identity = Identity::of(&header());
    let good = encode_commit(&stream(9), &commit(DATA_START, 1), &identity);
    decode_block(&good, &identity, DATA_START).unwrap();
    for bit in 0..BLOCK * 8 {
        let mut bad = good.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        decode_block(&bad, &identity, DATA_START).expect_err(&format!("bit {bit}"));
    }
}

#[test]
fn a_block_is_sound_only_in_its_place() {
    let block = encode_commit(&stream(9), &commit(2 * BLOCK_BYTES, 1), &Identity::of(&header()));
    let places = [
        (header(), 2 * BLOCK_BYTES),
        (header(), 3 * BLOCK_BYTES),
        (Header { epoch: 4, ..header() }, 2 * BLOCK_BYTES),
        (Header { segment: 3, ..header() }, 2 * BLOCK_BYTES),
        (Header { store_id: 1, ..header() }, 2 * BLOCK_BYTES),
    ];
    // By its checksum: what the block says might fit elsewhere too.
    let found = places.map(|(header, offset)| {
        decode_block(&block, &Identity::of(&header), offset).map_err(|fault| fault.expected.starts_with("checksum"))
    });
    assert!(found[0].is_ok(), "{found:?}");
    assert!(found[1..].iter().all(|found| matches!(found, Err(true))), "{found:?}");
}

#[test]
fn a_block_that_says_what_cannot_be_is_refused() {
    let identity = Identity::of(&header());
    let good = commit(3 * BLOCK_BYTES, 1);
    decode_block(&encode_commit(&stream(9), &good, &identity), &identity, good.start).unwrap();
    let wrong = [
        ("promises more than its start", Commit { promised: 4 * BLOCK_BYTES, ..good }),
        ("promises less than the header", Commit { promised: 0, ..good }),
        ("promises part of a block", Commit { promised: BLOCK_BYTES + 1, ..good }),
        ("starts where the link stands", Commit { start: LINK_AT, ..good }),
        ("starts beyond the window", Commit { start: 4 * BLOCK_BYTES, ..good }),
        ("ends beyond the segment", Commit { blocks: 3, ..good }),
        ("has no records", Commit { records: 0, ..good }),
        ("has no first record", Commit { first_seq: 0, ..good }),
    ];
    for (what, commit) in wrong {
        let block = encode_commit(&stream(9), &commit, &identity);
        let fault = decode_block(&block, &identity, commit.start).expect_err(what);
        assert_eq!(fault.expected, "consistent fields", "{what}");
    }
}

#[test]
fn short_input_is_refused_and_never_panics() {
    let header_bytes = header().encode();
    let identity = Identity::of(&header());
    for len in 0..BLOCK {
        assert!(decode_header(&header_bytes[..len]).is_err());
        assert!(decode_block(&header_bytes[..len], &identity, DATA_START).is_err());
        assert!(decode_link(&header_bytes[..len], &header()).is_err());
    }
    for len in 0..RECORD_HEAD {
        assert!(decode_record_head(&header_bytes[..len]).is_err());
    }
    for offset in [0, 1, u64::MAX, u64::MAX - 4095] {
        assert!(decode_block(&header_bytes, &identity, offset).is_err());
    }
}

/// The bytes of format version 2. If this fails, the format has changed: give it a new version and read both.
#[test]
fn golden_bytes() {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let encoded = header().encode();
    assert_eq!(
        hex(&encoded[..104]),
        "424b53544c4f473102000000001000\
         00ffeeddccbbaa9988776655443322110002000000000000000300000000000000005000000000000000100000000000000000000000000000\
         000000000000000000000000000000000000000000000000\
         0000000000000000"
    );
    let link = link_block(link());
    assert_eq!(hex(&link[..8]), "c3a98fddbf591a43");
    assert_eq!(hex(&link[8..48]), "05000000000000000100000000000000003000000000000004000000000000000000000000000000");
    assert_eq!(hex(&encoded[BLOCK - 8..]), "718f80d757ed32fd");
    let mut stream = Vec::new();
    for (seq, payload, zstd) in [(5, &b"hello"[..], false), (6, b"", false), (7, b"\x28\xb5", true)] {
        let head =
            RecordHead { seq, stored: payload.len() as u32, raw: if zstd { 9 } else { payload.len() as u32 }, zstd };
        encode_record(&mut stream, head, payload);
    }
    let commit = Commit { records: 3, ..commit(2 * BLOCK_BYTES, 1) };
    let block = encode_commit(&stream, &commit, &Identity::of(&header()));
    assert_eq!(hex(&block[..8]), "3cee553d63b9265b");
    assert_eq!(hex(&block[8..BLOCK_HEAD]), "0010000000000000050000000000000003000000010000000000000043000000");
    assert_eq!(
        hex(&block[BLOCK_HEAD..BLOCK_HEAD + 67]),
        "0500000000000000050000000000000005000000\
         68656c6c6f\
         0000000000000000060000000000000000000000\
         0200000001000000070000000000000009000000\
         28b5"
    );
    assert!(block[BLOCK_HEAD + 67..].iter().all(|b| *b == 0));
}
