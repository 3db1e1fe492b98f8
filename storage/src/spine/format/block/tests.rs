use super::*;

fn sample() -> RowBatch {
    let mut rows = RowBatch::new();
    for i in 0..40u32 {
        rows.push(format!("key {:03}", i / 2).as_bytes(), &i.to_be_bytes(), i64::from(i) - 100);
    }
    rows
}

#[test]
fn rows_come_back() {
    let rows = sample();
    let mut builder = BlockBuilder::default();
    for _ in 0..2 {
        rows.iter().for_each(|(k, v, w)| builder.push(k, v, w));
        assert_eq!(Block::read(builder.finish().to_vec(), 40, Discipline::Weighted).unwrap().to_rows(), rows);
        builder.clear();
    }
}

#[test]
fn rows_out_of_order_are_refused() {
    let orders: [[(&[u8], &[u8]); 2]; 4] =
        [[(b"a", b"1"), (b"b", b"1")], [(b"b", b"1"), (b"a", b"1")], [(b"a", b"2"), (b"a", b"1")], [(b"a", b"1"); 2]];
    for (i, rows) in orders.into_iter().enumerate() {
        let mut builder = BlockBuilder::default();
        rows.into_iter().for_each(|(key, value)| builder.push(key, value, 1));
        for discipline in [Discipline::Weighted, Discipline::Latest] {
            let decoded = Block::read(builder.finish().to_vec(), 2, discipline);
            assert_eq!(decoded.is_ok(), i == 0, "{rows:?}, {discipline}: {decoded:?}");
            builder.clear();
            rows.into_iter().for_each(|(key, value)| builder.push(key, value, 1));
        }
    }
    // Ascending by value is enough for weights to add, and not for a last value.
    let mut builder = BlockBuilder::default();
    [b"1", b"2"].into_iter().for_each(|value| builder.push(b"a", value, 1));
    let payload = builder.finish();
    assert!(Block::read(payload.to_vec(), 2, Discipline::Weighted).is_ok());
    assert!(Block::read(payload.to_vec(), 2, Discipline::Latest).is_err());
}

#[test]
fn any_changed_byte_is_decoded_or_refused() {
    let mut builder = BlockBuilder::default();
    sample().iter().for_each(|(k, v, w)| builder.push(k, v, w));
    let sound = builder.finish().to_vec();
    for at in 0..sound.len() {
        for bit in 0..8 {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            for discipline in [Discipline::Weighted, Discipline::Latest] {
                for rows in [0, 1, 39, 40, 41, u32::MAX] {
                    let _no_panic = Block::read(bytes.clone(), rows, discipline);
                }
            }
        }
        assert!(Block::read(sound[..at].to_vec(), 40, Discipline::Weighted).is_err());
    }
    assert!(Block::read(sound.clone(), 40, Discipline::Latest).is_err());
}
