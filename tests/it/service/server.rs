//! A service to be asked, and a client that asks.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::backstay;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// `backstay serve` at a port of its own.
pub struct Service {
    child: Child,
    address: String,
    /// Where it listens for clients of PostgreSQL's protocol, if it was asked to.
    postgres: Option<String>,
    root: PathBuf,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Status and headers, in lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.body))
    }
}

impl Service {
    pub fn start(root: &Path) -> Self {
        Self::start_with(root, &[])
    }

    pub fn start_with(root: &Path, more: &[&str]) -> Self {
        let dir = root.to_str().unwrap();
        let mut command = backstay(["serve", "--data-dir", dir, "--bind", "127.0.0.1:0"].iter().chain(more));
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        // As text, or within JSON.
        let at = line
            .find("serving at ")
            .and_then(|at| line[at..].strip_prefix("serving at "))
            .and_then(|rest| rest.split_once("://"));
        let address = at.and_then(|(_, rest)| rest.split(',').next());
        let address = address.unwrap_or_else(|| panic!("it did not start: {line}")).to_owned();
        let postgres = more.contains(&"--bind-postgres").then(|| {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            let address = line.trim().strip_prefix("serving PostgreSQL's protocol at ");
            address.unwrap_or_else(|| panic!("it does not speak PostgreSQL's protocol: {line}")).to_owned()
        });
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.lines().for_each(drop));
        Self { child, address, postgres, root: root.to_owned() }
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The manager's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens for clients of PostgreSQL's protocol.
    pub fn postgres(&self) -> &str {
        self.postgres.as_deref().unwrap()
    }

    /// One request over a connection of its own.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        match try_send(&self.address, method, path, headers, body) {
            Ok(answer) => answer,
            // A body that is too long is answered, and the connection closed, before all of it was sent: who sends on may then find it
            // reset, with the answer lost or not.
            Err(_) if body.len() > 1 << 20 => self.send(method, path, headers, body),
            Err(e) => panic!("{method} {path}: {e}"),
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "")
    }

    pub fn post(&self, path: &str) -> Answer {
        self.send("POST", path, &[], "")
    }

    /// Creates a pipeline, whose program must compile.
    pub fn create(&self, name: &str, sql: &str, config: Value) {
        let body = json!({ "name": name, "program_code": sql, "runtime_config": config });
        let answer = self.send("POST", "/v0/pipelines", &[], &body.to_string());
        assert_eq!(answer.status, 201, "{}", answer.body);
        assert_eq!(answer.json()["program_status"], "Success", "{}", answer.body);
    }

    /// The pipeline as it is shown.
    pub fn pipeline(&self, name: &str) -> Value {
        let answer = self.get(&format!("/v0/pipelines/{name}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// Waits until a pipeline has a deployment status.
    pub fn wait(&self, name: &str, status: &str) {
        self.until(&format!("{name} is {status}"), || self.pipeline(name)["deployment_status"] == status);
    }

    /// Asks for a change of state, and waits for it.
    pub fn turn(&self, name: &str, action: &str, status: &str) {
        let answer = self.post(&format!("/v0/pipelines/{name}/{action}"));
        assert_eq!(answer.status, 202, "{action}: {}", answer.body);
        self.wait(name, status);
    }

    pub fn stats(&self, name: &str) -> Option<Value> {
        let answer = self.get(&format!("/v0/pipelines/{name}/stats"));
        (answer.status == 200).then(|| answer.json())
    }

    /// The only value of a query's only row.
    pub fn value(&self, name: &str, sql: &str) -> Option<Value> {
        let answer = self.get(&format!("/v0/pipelines/{name}/query?format=json&sql={}", escaped(sql)));
        let row = (answer.status == 200).then(|| answer.json())?;
        row.as_object().unwrap().values().next().cloned()
    }

    pub fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            if begun.elapsed() > PATIENCE {
                let all = self.get("/v0/pipelines?selector=status").body;
                let logs: String = logs(&self.root.join("pipelines")).join("\n");
                panic!("not within {PATIENCE:?}: {what}\n{all}\n{logs}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL, which leaves the pipelines' processes.
    pub fn leave(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.root = PathBuf::new();
    }

    /// SIGTERM, and its end.
    pub fn end(mut self) {
        signal(self.child.id(), "TERM");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Service {
    /// No process outlives a test.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for socket in sockets(&self.root) {
            if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(socket) {
                let _ = stream.write_all(b"POST /stop HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
                let _ = stream.read(&mut [0; 64]);
            }
        }
    }
}

/// One request to an address where nobody may be, or be killed before the answer.
pub fn try_send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer, String> {
    let mut stream = TcpStream::connect(address).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "host") {
        request.push_str(&format!("host: {address}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    let sent = stream.write_all(format!("{request}\r\n{body}").as_bytes());
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    parse(&answer).ok_or_else(|| format!("no answer: {sent:?}, {read:?}"))
}

/// An answer that goes on, line by line.
pub struct Stream {
    from: BufReader<TcpStream>,
    /// What is left of the chunk.
    left: usize,
    pub status: u16,
}

impl Stream {
    /// Asks for one.
    pub fn open(address: &str, path: &str, headers: &[(&str, &str)]) -> Result<Self, String> {
        let mut stream = TcpStream::connect(address).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n");
        headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
        stream.write_all(format!("{request}\r\n").as_bytes()).map_err(|e| e.to_string())?;
        let mut from = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if from.read_line(&mut head).map_err(|e| e.to_string())? == 0 {
                return Err("no answer".to_owned());
            }
        }
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap();
        Ok(Self { from, left: 0, status })
    }

    fn byte(&mut self) -> Option<u8> {
        while self.left == 0 {
            let mut length = String::new();
            self.from.read_line(&mut length).ok().filter(|n| *n > 0)?;
            if !length.trim().is_empty() {
                self.left = usize::from_str_radix(length.trim(), 16).ok().filter(|n| *n > 0)?;
            }
        }
        let mut byte = [0];
        self.from.read_exact(&mut byte).ok()?;
        self.left -= 1;
        Some(byte[0])
    }
}

impl Iterator for Stream {
    type Item = String;

    /// A line; nothing, once it has ended or was cut off, even within a line.
    fn next(&mut self) -> Option<String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Some(String::from_utf8(line).unwrap()),
                byte => line.push(byte),
            }
        }
    }
}

fn sockets(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root.join("pipelines")).into_iter().flatten();
    entries.map(|e| e.unwrap().path().join("api.sock")).collect()
}

fn logs(pipelines: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(pipelines).into_iter().flatten();
    entries.filter_map(|e| std::fs::read_to_string(e.unwrap().path().join("log.txt")).ok()).collect()
}

/// Sends a signal to a process.
pub fn signal(pid: u32, name: &str) {
    let status = std::process::Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Text as part of a query string.
pub fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// An answer; nothing, if it ends too early.
fn parse(answer: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status: {head}"));
    let body = match head.to_lowercase().contains("transfer-encoding: chunked") {
        true => unchunked(body)?,
        false => body.to_owned(),
    };
    Some(Answer { status, head: head.to_lowercase(), body })
}

fn unchunked(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (length, after) = rest.split_once("\r\n")?;
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return Some(body);
        }
        body.push_str(after.get(..length)?);
        rest = after.get(length + 2..)?;
    }
}
