//! A small HTTP server with one resource, which does what a test tells it to.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What it has, and how it answers.
#[derive(Clone, Debug)]
pub struct Resource {
    pub content: Vec<u8>,
    /// The header that names the version, if there is one.
    pub version: Option<(&'static str, String)>,
    /// Whether it knows range requests.
    pub ranges: bool,
    /// Of so many answers one is an error of the server's, and one is cut off in the middle; 0: none.
    pub trouble: usize,
    /// The status of every answer, if it is not to answer.
    pub status: Option<&'static str>,
    /// How long it takes.
    pub delay: Duration,
}

impl Resource {
    pub fn new(content: impl Into<Vec<u8>>, etag: &str) -> Self {
        let version = Some(("ETag", format!("\"{etag}\"")));
        Self { content: content.into(), version, ranges: true, trouble: 0, status: None, delay: Duration::ZERO }
    }
}

pub struct Server {
    port: u16,
    resource: Arc<Mutex<Resource>>,
    requests: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    pub fn start(resource: Resource) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server =
            Self { port, resource: Arc::new(Mutex::new(resource)), requests: Arc::default(), stopped: Arc::default() };
        let (resource, requests, stopped) =
            (Arc::clone(&server.resource), Arc::clone(&server.requests), Arc::clone(&server.stopped));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (resource, requests) = (Arc::clone(&resource), Arc::clone(&requests));
                // A client may go away in the middle of whatever it asked for.
                std::thread::spawn(move || stream.and_then(|s| serve(s, &resource, &requests)));
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/data", self.port)
    }

    pub fn change(&self, change: impl FnOnce(&mut Resource)) {
        change(&mut self.resource.lock().unwrap());
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Answers the requests of one connection.
fn serve(mut stream: TcpStream, resource: &Mutex<Resource>, requests: &AtomicUsize) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    loop {
        let mut range = None;
        let mut any = false;
        for line in &mut lines {
            let line = line?;
            if line.is_empty() {
                break;
            }
            any = true;
            if let Some(("range", value)) = line.to_lowercase().split_once(": ") {
                let (from, to) = value.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                range = Some((from.parse::<usize>().unwrap(), to.parse::<usize>().unwrap()));
            }
        }
        if !any {
            return Ok(());
        }
        let Resource { content, version, ranges, trouble, status, delay } = resource.lock().unwrap().clone();
        let number = requests.fetch_add(1, Ordering::Relaxed) + 1;
        std::thread::sleep(delay);
        let version = version.map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
        if let Some(status) = status {
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        if trouble > 0 && number % trouble == 1 {
            write!(stream, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        let (head, body) = match range.filter(|_| ranges) {
            None => ("200 OK\r\n".to_owned(), &content[..]),
            Some((from, _)) if from >= content.len() => {
                (format!("416 No\r\nContent-Range: bytes */{}\r\n", content.len()), &[][..])
            }
            Some((from, to)) => {
                let to = to.min(content.len() - 1);
                let range = format!("206 Part\r\nContent-Range: bytes {from}-{to}/{}\r\n", content.len());
                (range, &content[from..=to])
            }
        };
        write!(stream, "HTTP/1.1 {head}{version}Content-Length: {}\r\n\r\n", body.len())?;
        if trouble > 0 && number % trouble == 2 % trouble {
            stream.write_all(&body[..body.len() / 2])?;
            return Ok(());
        }
        stream.write_all(body)?;
    }
}
