#![expect(clippy::disallowed_methods, reason = "the tests need a second thread")]

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{RecvTimeoutError, channel};

#[test]
fn two_threads_pass_every_item_in_order() {
    for capacity in [1, 2, 3, 64] {
        let (mut tx, mut rx) = channel(capacity);
        let producer = thread::spawn(move || {
            for i in 0..20_000_u32 {
                tx.send(Box::new(i)).unwrap();
            }
        });
        for i in 0..20_000 {
            assert_eq!(rx.recv().as_deref(), Some(&i), "capacity {capacity}");
        }
        assert_eq!(rx.recv(), None);
        producer.join().unwrap();
    }
}

#[test]
fn a_parked_receiver_wakes_for_an_item_and_for_the_sender_s_drop() {
    let (mut tx, mut rx) = channel(1);
    let consumer = thread::spawn(move || (rx.recv(), rx.recv()));
    thread::sleep(Duration::from_millis(20));
    tx.try_send(1).unwrap();
    thread::sleep(Duration::from_millis(20));
    drop(tx);
    assert_eq!(consumer.join().unwrap(), (Some(1), None));
}

#[test]
fn a_parked_sender_wakes_for_room_and_for_the_receiver_s_drop() {
    let (mut tx, mut rx) = channel(1);
    tx.try_send(1).unwrap();
    let producer = thread::spawn(move || (tx.send(2), tx.send(3)));
    thread::sleep(Duration::from_millis(20));
    assert_eq!(rx.try_recv(), Some(1));
    thread::sleep(Duration::from_millis(20));
    drop(rx);
    assert_eq!(producer.join().unwrap(), (Ok(()), Err(3)));
}

#[test]
fn a_timeout_of_any_length_is_accepted() {
    let (mut tx, mut rx) = channel(1);
    assert_eq!(rx.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
    tx.try_send(1).unwrap();
    assert!(tx.send_timeout(2, Duration::ZERO).is_err_and(|e| e.is_full()));
    assert_eq!(rx.recv_timeout(Duration::MAX), Ok(1));
}

#[test]
fn what_is_left_is_dropped_with_the_queue() {
    let item = Arc::new(());
    let (mut tx, mut rx) = channel(4);
    for _ in 0..4 {
        tx.try_send(item.clone()).unwrap();
    }
    drop(rx.try_recv());
    assert_eq!(Arc::strong_count(&item), 4);
    drop(rx);
    assert!(tx.try_send(item.clone()).is_err_and(|e| e.is_disconnected()));
    drop(tx);
    assert_eq!(Arc::strong_count(&item), 1);
}
