//! A log on its own: many threads append, each waits for its record; then all is read back.
//!
//! `cargo run --release -p backstay-storage --example log -- DIR`; kill it at any moment and run it again: what it said is
//! durable is there.

use backstay_storage::disk;
use backstay_storage::log::{Log, LogOptions};

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let dir = std::env::args().nth(1).ok_or("usage: log DIR")?;
    // An identity should be drawn at random where there are more logs than one.
    let log = Log::open_alone(disk::system(), dir.as_ref(), 0x5eed, LogOptions::default())?;
    let (before, first) = (log.durable(), log.first_seq());
    println!("{before} records are durable, the first kept is {first}");
    for (record, seq) in log.scan(first)?.zip(first..) {
        assert_eq!(record?.seq, seq, "a log has no holes");
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let log = &log;
                scope.spawn(move || -> backstay_storage::Result<()> {
                    for i in 0..1000 {
                        let seq = log.append(format!("thread {thread}, record {i}").as_bytes())?;
                        log.wait_durable(seq)?; // shared with the other threads' records
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })?;
    let stats = log.stats();
    println!("{} records more, in {} durable writes", stats.records, stats.commits);
    // Whoever has used the records up gives their room back.
    log.trim_before(log.durable())?;
    Ok(())
}
