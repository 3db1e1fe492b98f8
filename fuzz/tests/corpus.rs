//! Replays the corpus without a fuzzer, and keeps the seeds in step with the format.

use std::fs;
use std::path::{Path, PathBuf};

use backstay_fuzz::{TARGETS, log_recovery, seeds};

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

#[test]
fn seeds_are_what_the_engine_writes_and_every_target_takes_its_corpus() {
    let bless = std::env::var_os("BACKSTAY_BLESS").is_some();
    for (target, name, bytes) in seeds::corpus() {
        let path = folder(target).join(&name);
        if bless {
            fs::create_dir_all(folder(target)).expect("corpus folder");
            fs::write(&path, &bytes).expect("write a seed");
        }
        let found =
            fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; run BACKSTAY_BLESS=1 cargo test", path.display()));
        assert!(found == bytes, "{} is out of date; run BACKSTAY_BLESS=1 cargo test", path.display());
        assert!(TARGETS.iter().any(|(t, _)| *t == target), "{target} is no target");
    }
    for (target, run) in TARGETS {
        let mut files: Vec<_> =
            fs::read_dir(folder(target)).expect("corpus").map(|e| e.expect("entry").path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{target} has no seeds");
        for file in files {
            eprintln!("{target}: {}", file.display());
            run(&fs::read(&file).expect("a seed"));
        }
    }
}

#[test]
fn the_sound_log_is_read_whole() {
    assert_eq!(log_recovery::sound_records().len(), 32);
}

#[test]
fn the_files_beside_the_sound_log_are_what_they_are_meant_to_be() {
    use backstay_storage::log::format;
    let files = seeds::log_with_others();
    let [.., (_, newest), (_, ahead), (free, _)] = &files[..] else { panic!("{} files", files.len()) };
    let header = format::decode_header(newest).expect("header");
    assert!(format::decode_link(&newest[format::BLOCK..], &header).is_ok());
    let header = format::decode_header(ahead).expect("header");
    assert!(format::decode_link(&ahead[format::BLOCK..], &header).is_err());
    assert!(free.extension().is_some_and(|e| e == "free"));
}
