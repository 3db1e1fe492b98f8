//! A write or read that goes to another place of its file, a write that never comes, a read of what was there before, at
//! each operation of the workload: what is found afterwards is right, or an error or warning names the damage. Never
//! something else than what was written.

use std::path::Path;
use std::sync::Arc;

use backstay_storage::disk::sim::{CrashPlan, Fault};
use backstay_storage::disk::{Disk, SimDisk};
use backstay_storage::{Error, Store};

use super::seed;
use super::workload::{DIR, Embedder, Promised, SCRIPT, Stop, options, run};

#[test]
fn a_misdirected_operation_never_changes_what_is_read() {
    let seed = seed();
    let (mut named, mut harmless, mut cut) = (0, 0, 0);
    for op in 1.. {
        let mut over = false;
        let elsewhere = [0, 512, 4096, 8192, 5 * 4096, 9 * 4096].map(Fault::Misdirect);
        for fault in elsewhere.into_iter().chain([Fault::LostWrite, Fault::StaleRead]) {
            let at = format!("BACKSTAY_SEED={seed}, operation {op}, {fault:?}");
            let disk = SimDisk::new(seed);
            disk.fail_at(op, fault);
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let mut promised = Promised::default();
            let ran = run(&shared, seed, SCRIPT, &mut promised);
            over = disk.ops() < op;
            let ran = ran.and_then(|()| {
                // The last checkpoint but one counts if the last one is damaged; then that is said.
                let mut seen = Promised { checkpoint: 0, ..promised };
                let store = Store::open(Arc::new(disk.power_cycle(CrashPlan::KeepAll)), Path::new(DIR), options(seed))?;
                let warned = store.recovered().is_some_and(|r| !r.warnings.is_empty());
                let number = store.recovered().map_or(0, |r| r.number);
                assert!(warned || number == promised.checkpoint, "{at}: checkpoint {number}, without a word");
                Embedder::take_warned(store, seed, &mut seen).map(|_| warned)
            });
            match ran {
                Ok(true) | Err(Stop::Refused(Error::Damaged(_))) => named += 1,
                Ok(false) => harmless += 1,
                // A re-opening of the script that met a damaged checkpoint.
                Err(Stop::Wrong(said)) if said.starts_with("warnings without damage") => named += 1,
                // The limit that `docs/format.md` names: a last commit that is not there looks like one cut off.
                Err(Stop::Wrong(said)) if said.contains("was acknowledged, the log ends at") => cut += 1,
                Err(stop) => panic!("{at}: {stop:?}"),
            }
        }
        if over {
            break;
        }
    }
    println!("BACKSTAY_SEED={seed}: {named} named, {harmless} harmless, {cut} cut off the log's last commit");
    assert!(named > 100 && cut < named / 4, "{named} named, {harmless} harmless, {cut} cut");
}
