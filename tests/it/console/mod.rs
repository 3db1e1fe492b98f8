//! The console: what is served, and the whole of it in a real browser (Debian's Chromium, by Playwright). Without a browser those tests say
//! that they are skipped, and fail if `BACKSTAY_REQUIRE_SERVERS` is set.

mod browser;
mod pages;
