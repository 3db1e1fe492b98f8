//! The log of a store that is a copy: empty, and not at record 1.

use std::path::Path;
use std::sync::Arc;

use super::format::{DATA_START, Header, Link};
use super::maker::Maker;
use super::{LogOptions, Seq, recovery};
use crate::disk::Disk;
use crate::{Error, Result};

/// Makes a log in the empty folder `dir` whose next record is `first_seq`: a segment of the least size, which the next
/// opening seals. It is what is left of a log whose earlier segments were trimmed, durable on return.
pub(crate) fn begin(disk: &Arc<dyn Disk>, dir: &Path, store_id: u128, epoch: u64, first_seq: Seq) -> Result<()> {
    // Segment 1 begins with record 1, and every other one has one before it.
    let (segment, prev_len) = if first_seq == 1 { (1, 0) } else { (2, DATA_START) };
    if first_seq == 0 || first_seq > i64::MAX as u64 || epoch > i64::MAX as u64 {
        return Err(Error::Invalid(format!("no log can begin with record {first_seq} in epoch {epoch}")));
    }
    let least = LogOptions { segment_bytes: 0, ..LogOptions::default() };
    let segment_bytes = recovery::segment_bytes(&least, 0);
    let header = Header { store_id, segment, epoch, segment_bytes, window: 0 };
    let made = Maker::new(Arc::clone(disk), dir, header.clone(), None).finish()?;
    recovery::write_link(&*made.file, &header, Link { first_seq, prev_len })
}

#[cfg(test)]
mod tests {
    use super::super::Log;
    use super::*;
    use crate::disk::SimDisk;

    #[test]
    fn it_goes_on_where_it_was_told() {
        for first in [1, 2, 1 << 40] {
            let sim = SimDisk::new(1);
            let (disk, dir): (Arc<dyn Disk>, _) = (Arc::new(sim.clone()), Path::new("/log"));
            disk.create_dir_all(dir).unwrap();
            begin(&disk, dir, 7, 3, first).unwrap();
            let disk: Arc<dyn Disk> = Arc::new(sim.power_cycle(1));
            for (epoch, next) in [(4, first), (5, first + 1)] {
                let log = Log::open(Arc::clone(&disk), dir, 7, epoch, LogOptions::default()).unwrap();
                assert_eq!((log.first_seq(), log.next_seq()), (first, next));
                assert_eq!(log.append(b"x").unwrap(), next);
                log.commit().unwrap();
                let seqs: Vec<_> = log.scan(first).unwrap().map(|r| r.unwrap().seq).collect();
                assert_eq!(seqs, (first..=next).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn numbers_that_no_log_reaches_are_refused() {
        let (disk, dir): (Arc<dyn Disk>, _) = (Arc::new(SimDisk::new(1)), Path::new("/log"));
        for (first, epoch) in [(0, 1), (u64::MAX, 1), (1, u64::MAX)] {
            assert!(matches!(begin(&disk, dir, 7, epoch, first), Err(Error::Invalid(_))));
        }
    }
}
