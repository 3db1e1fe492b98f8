//! A full disk: the pipeline stops with an error that says so, and goes on exactly once there is room.

use std::path::Path;
use std::process::Command;

use crate::process::{files, output, repository, stderr, succeed};

/// Runs a test in a file system of its own that has so many bytes, where that can be had.
pub(crate) fn on_a_small_disk(size: &str, test: impl FnOnce(&Path) + std::panic::UnwindSafe) {
    let temp = tempfile::tempdir().unwrap();
    let mount = temp.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&mount).output();
    if !mounted.is_ok_and(|m| m.status.success()) {
        println!("SKIPPED: mounting a small file system is not allowed here (it needs root)");
        return;
    }
    let result = std::panic::catch_unwind(|| test(&mount));
    // The kernel takes down a process's ring, and with it its files, a little after the process has ended.
    let unmounted = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        Command::new("umount").arg(&mount).output().unwrap().status.success()
    });
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
    assert!(unmounted, "{} stays in use", mount.display());
}

/// The flights example with a byte limit for its store, or none.
fn program(dir: &Path, quota: Option<u64>) {
    let example = repository().join("examples/flights");
    let text = std::fs::read_to_string(example.join("flights.sql")).unwrap();
    let text = text.replace("\"path\": \"data/", &format!("\"path\": \"{}/data/", example.display()));
    std::fs::write(dir.join("flights.sql"), text).unwrap();
    let storage = quota.map_or("true".to_string(), |bytes| format!("{{\"quota_bytes\": {bytes}}}"));
    let config = format!(
        "{{\"storage\": {storage}, \"fault_tolerance\": {{\"checkpoint_interval_secs\": 1}}, \"rows_per_step\": 2000}}"
    );
    std::fs::write(dir.join("flights.config.json"), config).unwrap();
}

fn calm(temp: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    program(temp, None);
    let dir = temp.join("calm");
    succeed(["run", temp.join("flights.sql").to_str().unwrap(), "--data-dir", dir.to_str().unwrap(), "--until-end"]);
    files(&dir.join("out"))
}

#[test]
fn a_full_quota_stops_cleanly_and_with_room_the_run_resumes_exactly() {
    let temp = tempfile::tempdir().unwrap();
    let expected = calm(temp.path());
    let data = temp.path().join("data");
    let sql = temp.path().join("flights.sql");
    let args = ["run", sql.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--until-end"];
    // A log segment fits, the state of all flights does not; then a little more room; then enough.
    for quota in [18 << 20, 20 << 20] {
        program(temp.path(), Some(quota));
        let full = output(args);
        let text = stderr(&full);
        assert_eq!(full.status.code(), Some(5), "{text}");
        assert!(text.contains("no space left") && text.contains("make room"), "{text}");
    }
    program(temp.path(), None);
    succeed(args);
    assert!(files(&data.join("out")) == expected, "outputs differ after the disk was full");
}

#[test]
fn a_full_file_system_stops_cleanly_and_with_room_the_run_resumes_exactly() {
    let temp = tempfile::tempdir().unwrap();
    on_a_small_disk("20m", |mount| {
        let expected = calm(temp.path());
        let data = mount.join("data");
        let sql = temp.path().join("flights.sql");
        let args = ["run", sql.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--until-end"];
        let full = output(args);
        let text = stderr(&full);
        assert_eq!(full.status.code(), Some(5), "{text}");
        assert!(text.contains("no space left"), "{text}");
        let larger = Command::new("mount").args(["-o", "remount,size=1g"]).arg(mount).status().unwrap();
        assert!(larger.success());
        succeed(args);
        assert!(files(&data.join("out")) == expected, "outputs differ after the file system was full");
    });
}
