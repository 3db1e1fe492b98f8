//! The console's files, in the binary.

/// A file.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    path: &'static str,
    /// What it is.
    pub content_type: &'static str,
    /// Its bytes.
    pub bytes: &'static [u8],
}

impl Asset {
    /// The file at a path below `assets/`.
    pub fn find(path: &str) -> Option<Self> {
        ASSETS.iter().copied().find(|asset| asset.path == path)
    }
}

const fn content_type(path: &str) -> &'static str {
    match path.as_bytes() {
        [.., b'.', b'h', b't', b'm', b'l'] => "text/html; charset=utf-8",
        [.., b'.', b'c', b's', b's'] => "text/css; charset=utf-8",
        [.., b'.', b's', b'v', b'g'] => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    }
}

macro_rules! assets {
    ($($path:literal,)*) => {
        const ASSETS: &[Asset] = &[$(Asset {
            path: $path,
            content_type: content_type($path),
            bytes: include_bytes!(concat!("assets/", $path)),
        },)*];
    };
}

assets![
    "icon.svg",
    "index.html",
    "css/base.css",
    "css/controls.css",
    "css/editor.css",
    "css/figures.css",
    "css/layout.css",
    "js/api.js",
    "js/format.js",
    "js/hooks.js",
    "js/html.js",
    "js/main.js",
    "js/pages/circuit.js",
    "js/pages/connectors.js",
    "js/pages/create.js",
    "js/pages/key.js",
    "js/pages/list.js",
    "js/pages/logs.js",
    "js/pages/overview.js",
    "js/pages/pipeline.js",
    "js/pages/program.js",
    "js/pages/query.js",
    "js/pages/timeline.js",
    "js/settings/dialog.js",
    "js/settings/fields.js",
    "js/ui/chart.js",
    "js/ui/dialog.js",
    "js/ui/editor.js",
    "js/ui/layers.js",
    "js/ui/parts.js",
    "js/ui/schema.js",
    "js/ui/toasts.js",
    "vendor/hooks.mjs",
    "vendor/htm.mjs",
    "vendor/preact.mjs",
    "vendor/uplot.css",
    "vendor/uplot.mjs",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Files below a folder of the sources.
    fn files(dir: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        #[expect(clippy::disallowed_methods, reason = "a test looks at the sources")]
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path, found) } else { found.push(path) }
        }
    }

    #[test]
    fn every_file_is_served_and_no_page_names_another_host() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/console/assets");
        let mut found = Vec::new();
        files(&root, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for file in found {
            let path = file.strip_prefix(&root).unwrap().to_str().unwrap();
            if !matches!(path.rsplit('.').next(), Some("md" | "LICENSE")) {
                let asset = Asset::find(path).unwrap_or_else(|| panic!("{path} is not in the list"));
                let text = std::str::from_utf8(asset.bytes).unwrap();
                assert!(
                    path.starts_with("vendor/") || !text.replace("http://www.w3.org/", "").contains("://"),
                    "{path}"
                );
            }
        }
    }
}
