use super::*;

fn run(file: &str, key: &[u8]) -> RunMeta {
    RunMeta {
        file: file.into(),
        offset: 4096,
        len: 8192,
        checksum: 0x0102_0304_0506_0708,
        rows: 3,
        raw_bytes: 60,
        min_key: key.to_vec(),
        max_key: b"zz".to_vec(),
    }
}

fn sample() -> Manifest {
    let run = run("00000002-00000005.run", b"a");
    Manifest {
        store_id: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
        epoch: 2,
        number: 5,
        log_from: 7,
        log_durable: 9,
        extras: vec![ExtraMeta { name: "00000002-00000001.pending".into(), len: 75, checksum: 11 }],
        spines: vec![
            SpineMeta { name: "a".into(), discipline: Discipline::Weighted, format: 1, runs: vec![run] },
            SpineMeta { name: "b".into(), discipline: Discipline::Latest, format: 2, runs: vec![] },
        ],
        blob: Bytes::from_static(b"blob"),
        savepoint: None,
    }
}

/// The same as a savepoint's.
fn saved() -> Manifest {
    Manifest { savepoint: Some("v1".into()), ..sample() }
}

/// Puts both checksums right again, so that what lies behind them is reached.
fn reseal(bytes: &mut [u8]) {
    let sum = xxh3_64(&bytes[..HEADER]).to_le_bytes();
    bytes[HEADER..HEADER + 8].copy_from_slice(&sum);
    let end = bytes.len() - 8;
    let sum = xxh3_64(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&sum);
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

/// The diagram of `docs/format.md`, written out by hand. If this fails, the format has changed and needs a new version.
#[test]
fn golden_bytes() {
    let hex: String = sample().encode().iter().map(|b| format!("{b:02x}")).collect();
    let file = [
        "425354594d414e49",                                                   // magic "BSTYMANI"
        "0100000000000000",                                                   // version 1, flags 0
        "000102030405060708090a0b0c0d0e0f",                                   // store id
        "0200000000000000",                                                   // epoch
        "0500000000000000",                                                   // number
        "d100000000000000",                                                   // body length
        "e19b46fa86ed2bdc",                                                   // xxh3-64 of all before it
        "0700000000000000",                                                   // log from
        "0900000000000000",                                                   // log durable
        "01000000",                                                           // extra files
        "190000000000000030303030303030322d30303030303030312e70656e64696e67", // name
        "4b00000000000000",                                                   // length
        "0b00000000000000",                                                   // checksum
        "02000000",                                                           // spines
        "010000000000000061",                                                 // name "a"
        "01",                                                                 // weighted
        "01000000",                                                           // row format
        "01000000",                                                           // runs
        "150000000000000030303030303030322d30303030303030352e72756e",         // file
        "0010000000000000",                                                   // offset
        "0020000000000000",                                                   // length
        "0807060504030201",                                                   // checksum
        "0300000000000000",                                                   // rows
        "3c00000000000000",                                                   // raw bytes
        "010000000000000061",                                                 // smallest key
        "02000000000000007a7a",                                               // greatest key
        "010000000000000062",                                                 // name "b"
        "02",                                                                 // latest
        "02000000",                                                           // row format
        "00000000",                                                           // runs
        "0400000000000000626c6f62",                                           // blob
        "05ca6ef8ab71bae5",                                                   // xxh3-64 of all before it
    ];
    assert_eq!(hex, file.concat());
}

/// A savepoint's manifest differs from the checkpoint's in the flag, the name and what is computed of them.
#[test]
fn golden_bytes_of_a_savepoint() {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let (plain, saved) = (sample().encode(), saved().encode());
    let body = HEADER + 8;
    let front = [
        "425354594d414e49",                 // magic "BSTYMANI"
        "0100000001000000",                 // version 1, flags 1
        "000102030405060708090a0b0c0d0e0f", // store id
        "0200000000000000",                 // epoch
        "0500000000000000",                 // number
        "db00000000000000",                 // body length: 10 more
        "eeec6d66b24cc54e",                 // xxh3-64 of all before it
    ];
    assert_eq!(hex(&saved[..body]), front.concat());
    assert_eq!(saved[body..plain.len() - 8], plain[body..plain.len() - 8], "the same body");
    let end = [
        "02000000000000007631", // name "v1"
        "5c97cf8b2095f11e",     // xxh3-64 of all before it
    ];
    assert_eq!(hex(&saved[plain.len() - 8..]), end.concat());
}

#[test]
fn a_savepoint_of_an_impossible_name_is_damage() {
    for name in ["", "../x", "A"] {
        let manifest = Manifest { savepoint: Some(name.into()), ..sample() };
        let e = Manifest::decode(&manifest.encode(), Path::new("m")).unwrap_err();
        assert!(matches!(&e, Error::Damaged(d) if d.expected == "a savepoint's name"), "{e}");
    }
}

#[test]
fn what_is_encoded_is_decoded() {
    for manifest in [Manifest::default(), sample(), saved()] {
        assert_eq!(Manifest::decode(&manifest.encode(), Path::new("m")).unwrap(), manifest);
    }
}

#[test]
fn every_flipped_bit_is_damage() {
    let bytes = saved().encode();
    for at in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[at / 8] ^= 1 << (at % 8);
        let got = Manifest::decode(&bad, Path::new("m"));
        assert!(matches!(&got, Err(Error::Damaged(d)) if d.file == Path::new("m")), "bit {at}: {got:?}");
    }
}

#[test]
fn every_truncation_and_extension_is_damage() {
    let mut bytes = saved().encode();
    for len in 0..bytes.len() {
        let got = Manifest::decode(&bytes[..len], Path::new("m"));
        assert!(matches!(got, Err(Error::Damaged(_))), "{len} bytes: {got:?}");
    }
    bytes.push(0);
    assert!(matches!(Manifest::decode(&bytes, Path::new("m")), Err(Error::Damaged(_))));
}

#[test]
fn another_version_is_not_damage() {
    let mut bytes = sample().encode();
    bytes[8] = 2;
    reseal(&mut bytes);
    let e = Manifest::decode(&bytes, Path::new("m")).unwrap_err();
    assert!(matches!(e, Error::Unsupported { .. }), "{e}");
    assert!(e.to_string().contains("format version 2"), "{e}");
}

#[test]
fn spines_out_of_order_are_refused() {
    let mut manifest = sample();
    manifest.spines.swap(0, 1);
    let e = Manifest::decode(&manifest.encode(), Path::new("m")).unwrap_err();
    assert!(e.to_string().contains("a spine name after \"b\""), "{e}");
}

/// Bytes behind sound checksums that no writer of ours made: decoded or refused, never a panic or a huge allocation.
#[test]
fn mangled_bodies_do_not_panic() {
    let seed = 0x5eed;
    let mut rng = Rng(seed);
    let sound = saved().encode();
    for round in 0..20_000 {
        let mut bytes = sound.clone();
        for _ in 0..1 + rng.below(4) {
            let at = HEADER + 8 + rng.below(bytes.len() - HEADER - 16);
            bytes[at] = [0, 1, 0x7f, 0xff, rng.below(256) as u8][rng.below(5)];
        }
        reseal(&mut bytes);
        if let Ok(manifest) = Manifest::decode(&bytes, Path::new("m")) {
            assert_eq!(manifest.encode(), bytes, "seed {seed:#x}, round {round}: two encodings of one manifest");
        }
    }
}
