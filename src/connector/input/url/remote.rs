//! What stands behind a URL, in pieces.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ureq::http::Uri;
use ureq::{Agent, Error};

use super::super::content::{Blob, Piece};
use crate::connector::{ConnectorError, Result, http};

/// What is asked for first: enough for a header, and to tell gzip.
const FIRST: u64 = 64 << 10;
/// What is asked for later.
const PIECE: u64 = 4 << 20;
/// The most that is taken of a server without range requests.
const WHOLE: u64 = 64 << 20;
const ANSWER: Duration = Duration::from_secs(30);

/// Asks for one URL.
pub(super) struct Client {
    connector: String,
    url: String,
    name: String,
    agent: OnceLock<Agent>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.name).finish_non_exhaustive()
    }
}

/// What a server answered.
struct Answer {
    version: String,
    /// The whole's length.
    len: u64,
    /// Where `bytes` stand in the whole.
    start: u64,
    bytes: Vec<u8>,
}

impl Client {
    /// A client that connects when it is first asked; an error says what is wrong with the URL.
    pub(super) fn new(connector: &str, url: &str) -> Result<Self, String> {
        let wrong = || "\"path\" must be a URL, such as \"https://example.com/data.json\"".to_owned();
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(wrong()) };
        if !matches!(scheme, "http" | "https") {
            return Err(format!("\"path\" begins with {scheme}://; there are: http://, https://"));
        }
        let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        let name = format!("{scheme}://{host}{port}{}", uri.path());
        Ok(Self { connector: connector.to_owned(), url: url.to_owned(), name, agent: OnceLock::new() })
    }

    pub(super) fn connector(&self) -> &str {
        &self.connector
    }

    /// The URL without what may be secret.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn agent(&self) -> Result<&Agent> {
        if let Some(agent) = self.agent.get() {
            return Ok(agent);
        }
        let agent = http::agent(&self.url, ANSWER).map_err(|e| self.error(e))?;
        Ok(self.agent.get_or_init(|| agent))
    }

    fn error(&self, message: impl fmt::Display) -> ConnectorError {
        ConnectorError::new(&self.connector, format!("{}: {message}", self.name))
    }

    fn passing(&self, message: impl fmt::Display) -> ConnectorError {
        ConnectorError { retry: true, ..self.error(message) }
    }

    /// An error of the connection's; most pass by themselves.
    fn failed(&self, error: &Error) -> ConnectorError {
        let (message, retry) = http::explain(error);
        ConnectorError { retry, ..self.error(message) }
    }

    /// Asks for up to `count` bytes from `start` on.
    fn get(&self, start: u64, count: u64) -> Result<Answer> {
        let range = format!("bytes={start}-{}", start.saturating_add(count).saturating_sub(1));
        let mut response = self.agent()?.get(&self.url).header("Range", range).call().map_err(|e| self.failed(&e))?;
        let header =
            |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(|v| v.trim().to_owned());
        let version = header("etag").or_else(|| header("last-modified")).unwrap_or_default();
        if let Some(encoding) = header("content-encoding").filter(|e| !e.eq_ignore_ascii_case("identity")) {
            return Err(
                self.error(format!("the server sends the content encoded as {encoding}, which was not asked for"))
            );
        }
        let content_range = header("content-range").unwrap_or_default();
        let status = response.status();
        match status.as_u16() {
            206 => {
                let Some((from, to, len)) = parse_range(&content_range).filter(|(from, _, _)| *from == start) else {
                    return Err(self.error(format!(
                        "was asked for bytes from {start} on, and answered with \"Content-Range: {content_range}\"; it must be bytes {start}-<last>/<length>"
                    )));
                };
                let read = response.body_mut().with_config().limit(count.saturating_add(1)).read_to_vec();
                let bytes = read.map_err(|e| self.failed(&e))?;
                let expected = (to - from).saturating_add(1);
                if bytes.len() as u64 != expected {
                    return Err(self.passing(format!("bytes {from} to {to} were promised, and {} came", bytes.len())));
                }
                Ok(Answer { version, len, start, bytes })
            }
            200 => {
                let too_long = || {
                    self.error(format!(
                        "the server does not answer range requests, and has more than {} MiB there; download it, and use file_input",
                        WHOLE >> 20
                    ))
                };
                if header("content-length").and_then(|l| l.parse::<u64>().ok()).is_some_and(|len| len > WHOLE) {
                    return Err(too_long());
                }
                match response.body_mut().with_config().limit(WHOLE + 1).read_to_vec() {
                    Ok(bytes) if bytes.len() as u64 > WHOLE => Err(too_long()),
                    Ok(bytes) => Ok(Answer { version, len: bytes.len() as u64, start: 0, bytes }),
                    Err(Error::BodyExceedsLimit(_)) => Err(too_long()),
                    Err(e) => Err(self.failed(&e)),
                }
            }
            // There is nothing at that place: the whole is empty, or shorter than it was.
            416 => match content_range.strip_prefix("bytes */").and_then(|len| len.parse().ok()) {
                Some(len) => Ok(Answer { version, len, start, bytes: Vec::new() }),
                None => Err(self.error(format!("there is no byte {start} (status 416)"))),
            },
            408 | 425 | 429 | 500..=599 => Err(self.passing(format!("the server answers {status}"))),
            404 | 410 => Err(self.error(format!("there is nothing there ({status}); check \"path\""))),
            401 | 403 => Err(self.error(format!(
                "the server refuses to answer ({status}); the URL may need a user and a password, or has expired"
            ))),
            _ => Err(self.error(format!("the server answers {status}"))),
        }
    }
}

/// First and last byte, and the whole's length, of a `Content-Range`.
fn parse_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, len) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (from, to) = range.split_once('-')?;
    let (from, to, len) = (from.parse().ok()?, to.parse().ok()?, len.parse().ok()?);
    (from <= to && to < len).then_some((from, to, len))
}

/// One version of what stands behind the URL.
pub(super) struct Remote {
    client: Arc<Client>,
    version: String,
    len: u64,
    piece: Piece,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, version, len, .. } = self;
        f.debug_struct("Remote").field("client", client).field("version", version).field("len", len).finish()
    }
}

impl Remote {
    pub(super) fn open(client: Arc<Client>) -> Result<Self> {
        let Answer { version, len, start, bytes } = client.get(0, FIRST)?;
        Ok(Self { client, version, len, piece: Piece::new(start, bytes) })
    }

    /// Whether it can be read on.
    pub(super) fn is_good(&self) -> bool {
        self.piece.is_good()
    }

    /// The piece from `at` on, of the same version.
    fn fetch(&self, at: u64) -> Result<(u64, Vec<u8>)> {
        let Answer { version, len, start, bytes } = self.client.get(at, PIECE)?;
        if (&version, len) != (&self.version, self.len) {
            let of = |version: &str| if version.is_empty() { "no version".to_owned() } else { version.to_owned() };
            return Err(self.client.error(format!(
                "it changed while it was read: expected {} and {} bytes, got {} and {len} bytes; url_input is for content that stays: put the old content back, or start \
                 anew with an empty data directory",
                of(&self.version),
                self.len,
                of(&version)
            )));
        }
        match bytes.is_empty() {
            true => Err(self.client.passing(format!("nothing came of the bytes from {at} on"))),
            false => Ok((start, bytes)),
        }
    }
}

impl Blob for Remote {
    fn name(&self) -> String {
        self.client.name().to_owned()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        self.piece.read_at(buf, at, self.len, |from| self.fetch(from))
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn version(&self) -> &str {
        &self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_their_secrets_kept() {
        let client = Client::new("t.c", "https://me:secret@host:81/a/b.csv?token=secret#x").unwrap();
        assert_eq!(client.name(), "https://host:81/a/b.csv");
        assert!(!format!("{client:?} {}", client.error("no")).contains("secret"));
        for (url, why) in
            [("data.csv", "must be a URL"), ("ftp://h/a", "begins with ftp://"), ("http://", "must be a URL")]
        {
            let e = Client::new("t.c", url).unwrap_err();
            assert!(e.contains(why), "{url}: {e}");
        }
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(parse_range("bytes 3-9/20"), Some((3, 9, 20)));
        for wrong in ["bytes 3-9/*", "bytes 9-3/20", "bytes 3-20/20", "3-9/20", "bytes */20", ""] {
            assert_eq!(parse_range(wrong), None, "{wrong}");
        }
    }
}
