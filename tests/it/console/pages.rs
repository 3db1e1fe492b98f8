//! The console's files as they are served.

use crate::service::security::key_file;
use crate::service::server::Service;

#[test]
fn pages_are_guarded_and_need_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    key_file(&keys);
    let service = Service::start_with(dir.path(), &["--api-key-file", keys.to_str().unwrap()]);
    assert_eq!(service.get("/v0/pipelines").status, 401);
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/console/js/main.js", "text/javascript; charset=utf-8"),
        ("/console/vendor/preact.mjs", "text/javascript; charset=utf-8"),
        ("/console/css/base.css", "text/css; charset=utf-8"),
        ("/console/icon.svg", "image/svg+xml"),
    ] {
        let answer = service.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        for header in [
            format!("content-type: {content_type}"),
            "cache-control: no-cache".into(),
            "x-content-type-options: nosniff".into(),
            "x-frame-options: deny".into(),
            "referrer-policy: no-referrer".into(),
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';".into(),
        ] {
            assert!(answer.head.contains(&header), "{path}: {header} is not in\n{}", answer.head);
        }
        for guard in ["frame-ancestors 'none'", "require-trusted-types-for 'script'", "connect-src 'self'"] {
            assert!(answer.head.contains(guard), "{path}: {guard}");
        }
        assert!(!answer.head.contains("unsafe"), "{}", answer.head);
        let tag = answer.head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
        let again = service.send("GET", path, &[("if-none-match", tag)], "");
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
        assert_eq!(service.send("GET", path, &[("if-none-match", "\"other\"")], "").status, 200);
        assert_eq!(
            service.send("GET", path, &[("host", "evil.example"), ("origin", "http://other.example")], "").status,
            403
        );
    }
}

#[test]
fn nothing_else_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    for path in [
        "/console/",
        "/console/nope.js",
        "/console/../Cargo.toml",
        "/console/%2e%2e/mod.rs",
        "/console/vendor/preact.LICENSE/x",
    ] {
        let answer = service.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["error_code"], "UnknownRoute", "{path}");
    }
    assert_eq!(service.post("/").json()["error_code"], "WrongMethod");
}
