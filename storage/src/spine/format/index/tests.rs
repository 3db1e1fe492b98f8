use super::*;

#[test]
fn one_key_over_many_blocks() {
    let mut index = Index::default();
    let long = |n: u8| [&[1; 64][..], &[n]].concat();
    index.push(10, 1, b"a", b"left out", b"k");
    index.push(10, 1, b"k", &long(1), b"k");
    index.push_page(5, 6);
    index.push(10, 1, b"k", &long(2), b"k");
    index.push(10, 1, b"k", b"\x02", b"z");
    index.push_page(7, 0);
    index.seal();
    assert_eq!(decode_index(&index.encode(), 4, 2), Ok(index.clone()));
    assert_eq!(index.blocks_of(b"k", 0), 0..4);
    assert_eq!(index.blocks_of(b"b", 0), 0..1);
    assert_eq!(index.blocks_of(b"l", 3), 3..4);
    assert!(index.blocks_of(b"zz", 0).is_empty() && index.blocks_of(b"A", 0).is_empty());
    assert_eq!(index.first_reaching_row(b"k", &long(2)), 0);
    assert_eq!(index.first_reaching_row(b"k", b"\x02"), 2);
    assert_eq!(index.first_reaching_row(b"k", b"\x03"), 3);
    assert_eq!(index.first_reaching_row(b"zz", b""), 4);
    assert!(index.may_begin_below(1, b"k", &long(2)) && !index.may_begin_below(3, b"k", &long(2)));
    assert_eq!((index.min_key(), index.max_key(), index.end()), (&b"a"[..], &b"z"[..], 58));
    assert_eq!((index.place(2), index.pages()[0].rows), (Some((31, 10)), (25, 6)));
    assert_eq!((index.page_of(1, 0), index.page_of(2, 0), index.page_of(3, 1)), (0, 1, 1));
}

#[test]
fn searches_from_anywhere_agree() {
    let mut index = Index::default();
    let key = |n: usize| format!("the same start {n:05}").into_bytes();
    for block in 0..100 {
        index.push(10, 1, &key(block * 10), b"", &key(block * 10 + 5));
    }
    index.push_page(1, 0);
    index.seal();
    for n in 0..1005 {
        let want = (n + 4) / 10;
        for from in [0, want / 2, want] {
            assert_eq!(index.first_reaching(&key(n), from), want, "{n} from {from}");
        }
    }
    assert_eq!((index.first_reaching(b"the same", 0), index.first_reaching(b"u", 0)), (0, 100));
}

#[test]
fn blocks_out_of_order_are_refused() {
    for (second, sound) in [([b"k", b"z"], true), ([b"j", b"z"], false), ([b"z", b"k"], false)] {
        let mut index = Index::default();
        index.push(10, 1, b"a", b"", b"k");
        index.push(10, 1, second[0], b"", second[1]);
        index.push_page(1, 0);
        assert_eq!(decode_index(&index.encode(), 2, 1).is_ok(), sound, "{second:?}");
    }
}

#[test]
fn lying_counts_are_refused() {
    let mut index = Index::default();
    index.push(10, 1, b"a", b"v", b"k");
    index.push_page(1, 0);
    let bytes = index.encode();
    for (blocks, pages) in [(0, 1), (u32::MAX, 1), (1, 0), (1, u32::MAX), (0, 0)] {
        assert!(decode_index(&bytes, blocks, pages).is_err());
    }
}
