//! Contenders taking turns, so that a noisy machine is noisy to all.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Bench;
use crate::bytes::Noise;
use crate::contender::Contender;

/// Rounds of turns; an even number, so that each contender is as often early as late.
pub const ROUNDS: usize = 4;
/// The part of a turn that is dropped at its start.
const WARM_UP: f64 = 0.2;

/// What one turn gives; a figure in the row's unit.
pub type Turn<'a> = Box<dyn FnMut() -> f64 + 'a>;

/// A contender's figures.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Who.
    pub name: String,
    /// One a round.
    pub rounds: Vec<f64>,
}

/// Lets the contenders take turns: A B C, C B A, A B C, …
pub fn take(bench: &Bench, mut contenders: Vec<(String, Turn<'_>)>) -> Vec<Figures> {
    let mut figures: Vec<Figures> =
        contenders.iter().map(|(name, _)| Figures { name: name.clone(), rounds: Vec::new() }).collect();
    for round in 0..ROUNDS {
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for i in order {
            bench.settle();
            figures[i].rounds.push((contenders[i].1)());
        }
    }
    figures
}

/// What a turn of appends gave.
pub struct Appended {
    /// Durable appends a second, by all threads.
    pub per_second: f64,
    /// Half of the appends took no longer, in µs.
    pub p50_us: f64,
}

/// Lets `threads` append payloads of `len` bytes for `time`, each durable before the thread's next.
pub fn append(contender: &dyn Contender, noise: &Noise, threads: usize, len: usize, time: Duration) -> Appended {
    contender.settle();
    let (warm_up, stop, ready) = (time.mul_f64(WARM_UP), AtomicBool::new(false), Barrier::new(threads + 1));
    let work = |thread: usize| {
        let mut append = contender.worker(thread);
        let (mut nanos, mut n) = (Vec::new(), thread as u64 * 1_000_003);
        ready.wait();
        let begun = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            append(noise.payload(n, len));
            let ended = Instant::now();
            // What began in the warm-up is dropped.
            if start - begun >= warm_up {
                nanos.push((ended - start).as_nanos() as u64);
            }
            n += 1;
        }
        nanos
    };
    let (work, ready, stop) = (&work, &ready, &stop);
    let (mut nanos, counted) = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|i| scope.spawn(move || work(i))).collect();
        ready.wait();
        let begun = Instant::now();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let nanos: Vec<u64> = workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect();
        // To the last thread's end: it finished what it had begun.
        (nanos, begun.elapsed() - warm_up)
    });
    nanos.sort_unstable();
    let p50 = nanos.get(nanos.len() / 2).copied().unwrap_or(u64::MAX);
    Appended { per_second: nanos.len() as f64 / counted.as_secs_f64(), p50_us: p50 as f64 / 1e3 }
}
