//! Kafka to SQL to Kafka, messages a second, beside librdkafka's own consumer and producer in a loop.
//!
//! One broker (`tests/servers/kafka`, or `BACKSTAY_TEST_KAFKA`), one topic, the same settings for all: committed messages are read, half of
//! them pass a filter, and these are sent in transactions of the same size. The ways take turns, every other round backwards.
//! Then messages with the time in them come at a tenth of the rate, and a reader of committed messages says how late they are.

#![expect(clippy::disallowed_methods, reason = "a bench measures time, makes folders and threads as a user would")]

#[path = "kafka/broker.rs"]
mod broker;
mod common;
#[path = "common/figures.rs"]
mod figures;
#[path = "kafka/ours.rs"]
mod ours;
#[path = "kafka/peer.rs"]
mod peer;

use std::time::Duration;

use backstay_storage::disk;

use broker::Broker;
use common::Args;
use figures::median;
use ours::{Ours, Rows};

/// The ways that a run takes.
#[derive(Clone, Copy, Debug)]
enum Way {
    Peer,
    Ours(Ours),
}

impl Way {
    fn label(self) -> String {
        match self {
            Way::Peer => "librdkafka, consumer and producer".into(),
            Way::Ours(ours) => ours.label(),
        }
    }

    fn rows(self) -> Rows {
        match self {
            Way::Peer => Rows::Raw,
            Way::Ours(ours) => ours.rows,
        }
    }
}

fn main() {
    let (mut messages, mut rounds) = (1_000_000_u64, 3_usize);
    let args = Args::parse(&["--messages=N", "--rounds=N"], |flag| match flag.split_once('=') {
        Some(("--messages", n)) => messages = n.parse().expect("a number of messages"),
        Some((_, n)) => rounds = n.parse().expect("a number of rounds"),
        None => {}
    });
    let folder = args.folder();
    println!("kafka: messages a second from a topic through a filter to a topic");
    let probed = disk::system();
    probed.probe(folder.path()).expect("probe");
    common::describe_machine(folder.path(), &*probed);
    let broker = Broker::start(&folder.path().join("broker"));
    for rows in [Rows::Raw, Rows::Json] {
        broker.fill(rows.topic(), messages, |n| rows.message(n));
    }
    let ours = |rows, exactly_once| Way::Ours(Ours { rows, exactly_once });
    let ways =
        [Way::Peer, ours(Rows::Raw, true), ours(Rows::Raw, false), ours(Rows::Json, true), ours(Rows::Json, false)];
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..ways.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let way = ways[at];
            let output = format!("out-{round}-{at}");
            broker.create(&output, 1);
            let took = match way {
                Way::Peer => peer::copy(&broker, Rows::Raw.topic(), &output, messages),
                Way::Ours(ours) => ours::run(ours, &broker, &output, folder.path(), messages),
            };
            let passed = (0..messages).filter(|n| way.rows().passes(*n)).count() as u64;
            assert_eq!(broker.count(&output), passed, "{}", way.label());
            rates[at].push(messages as f64 / took.as_secs_f64());
        }
    }
    let base = median(&rates[0]);
    println!("\n{messages} messages, {rounds} rounds; thousands of messages read a second: median (least to most)\n");
    for (way, rates) in ways.iter().zip(&rates) {
        let (least, most) = rates.iter().fold((f64::MAX, 0.0_f64), |(least, most), r| (least.min(*r), most.max(*r)));
        let (label, middle) = (way.label(), median(rates));
        println!(
            "{label:<40} {:>8.0} ({:.0} to {:.0})  {:>4.0} % of librdkafka",
            middle / 1e3,
            least / 1e3,
            most / 1e3,
            100.0 * middle / base
        );
    }
    for rows in [Rows::Raw, Rows::Json] {
        let at = |exactly_once: bool| {
            let is_it = |way: &Way| matches!(way, Way::Ours(o) if o.exactly_once == exactly_once && o.rows == rows);
            ways.iter().position(is_it).map_or(f64::NAN, |at| median(&rates[at]))
        };
        println!("{rows:?}: exactly once costs {:.0} % of at least once", 100.0 * (1.0 - at(true) / at(false)));
    }
    let rate = (median(&rates[1]) / 10.0) as u64;
    let late = ours::latency(&broker, folder.path(), rate, Duration::from_secs(20));
    println!(
        "\nexactly once at {rate} messages a second, from before the message is sent to when it is read committed: p50 {:.1} ms, p99 {:.1} ms",
        late.p50.as_secs_f64() * 1e3,
        late.p99.as_secs_f64() * 1e3
    );
}
