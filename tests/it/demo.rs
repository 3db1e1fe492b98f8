//! README's first command, small.

use crate::process::backstay;

#[test]
fn the_demo_finds_no_duplicates_and_no_losses() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("demo");
    let args = ["demo", "--events", "200000", "--kills", "3", "--seed", "7", "--dir"];
    let output = backstay(args).arg(&dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("kills 3, "), "{text}");
    assert!(text.contains("duplicates 0, losses 0"), "{text}");
    assert!(text.contains("byte for byte"), "{text}");
}
