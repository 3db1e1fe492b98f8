//! Durable appends of 256 bytes by 1 and by 16 threads, beside other logs and one file a step.

use std::path::Path;

use crate::Bench;
use crate::bytes::Noise;
use crate::contender::Contender;
use crate::contender::backstay::Backstay;
use crate::contender::files::Files;
use crate::contender::okaywal::OkayWal;
use crate::contender::raft_engine::RaftEngine;
use crate::report::{self, Better, Report, Target};
use crate::turns::{self, Figures, Turn};

const LEN: usize = 256;

/// A peer; of several ways to set it the best counts.
struct Peer {
    name: &'static str,
    settings: Vec<(&'static str, Box<dyn Contender>)>,
    target: Target,
}

/// Both numbers of threads.
pub fn run(bench: &Bench, report: &mut Report) {
    for threads in [1, 16] {
        let appenders = if threads == 1 { "1 appender".into() } else { format!("{threads} appenders") };
        report::title(&format!("durable: {appenders}, {LEN} B, each durable before its thread's next"));
        beside_peers(bench, report, threads, &appenders);
    }
}

fn beside_peers(bench: &Bench, report: &mut Report, threads: usize, appenders: &str) {
    let (folder, noise) = (bench.new_folder(), Noise::new());
    let log = Backstay::trimmed(&bench.disk, &folder.path().join("backstay"), &noise);
    let peers = peers(folder.path(), &noise);
    let noise = &noise;
    let turn = |contender: &dyn Contender| turns::append(contender, noise, threads, LEN, bench.turn).per_second;
    let mut contenders: Vec<(String, Turn<'_>)> = vec![("backstay".into(), Box::new(|| turn(&log)))];
    for peer in &peers {
        for (setting, contender) in &peer.settings {
            contenders.push((label(peer.name, setting), Box::new(move || turn(&**contender))));
        }
    }
    let figures = turns::take(bench, contenders);
    report::table("durable/s", &figures);
    let (ours, mut rest) = (&figures[0], &figures[1..]);
    for peer in &peers {
        let (settings, after): (&[Figures], _) = rest.split_at(peer.settings.len());
        rest = after;
        report.ratio(&format!("durable, {appenders}"), ours, report::best(settings, Better::More), peer.target);
    }
}

fn label(name: &str, setting: &str) -> String {
    if setting.is_empty() { name.into() } else { format!("{name}, {setting}") }
}

fn peers(folder: &Path, noise: &Noise) -> Vec<Peer> {
    vec![
        Peer {
            name: "raft-engine",
            settings: vec![("", Box::new(RaftEngine::new(&folder.join("raft-engine"), noise)))],
            target: Target::Ahead,
        },
        Peer {
            name: "okaywal",
            settings: vec![
                ("files of 1 MiB", Box::new(OkayWal::new(&folder.join("okaywal 1"), 1, noise))),
                ("files of 16 MiB", Box::new(OkayWal::new(&folder.join("okaywal 16"), 16, noise))),
            ],
            target: Target::Ahead,
        },
        #[cfg(feature = "rocksdb")]
        rocksdb(folder, noise),
        Peer {
            name: "one file a step",
            settings: vec![("", Box::new(Files::new(&folder.join("files"))))],
            target: Target::AtLeast(30.0),
        },
    ]
}

#[cfg(feature = "rocksdb")]
fn rocksdb(folder: &Path, noise: &Noise) -> Peer {
    use crate::contender::rocksdb::{Rocks, Writing};
    let open = |name: &str, writing| Box::new(Rocks::new(&folder.join(format!("rocksdb {name}")), writing, noise));
    Peer {
        name: "RocksDB's log",
        settings: vec![
            ("plain", open("plain", Writing::Plain)),
            ("pipelined", open("pipelined", Writing::Pipelined)),
            ("unordered", open("unordered", Writing::Unordered)),
        ],
        target: Target::Ahead,
    }
}
