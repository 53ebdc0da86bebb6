//! Programs that a test starts, talks to over HTTP and ends, such as `prometheus`; and a small server that shows them
//! text. Everything listens on a free port of 127.0.0.1.
//!
//! A daemon ends with its [`Daemon`], also when the test fails, and when the test process is killed.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

/// How long a daemon may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a program and ends it when standard input ends, which it does when the test is gone, whatever became of it.
const WRAPPER: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
program=$!
(cat <&3 >/dev/null; kill "$program" 2>/dev/null) &
wait "$program"
"#;

/// Says what a test did not do for want of a program.
pub(crate) fn skip(what: &str) {
    // Not with eprintln!, which the test harness swallows when a test passes.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {what}\n").as_bytes());
}

/// Whether a program is installed: its version, or `None` and a printed word.
pub(crate) fn version(program: &str, what_is_skipped: &str) -> Option<String> {
    match Command::new(program).arg("--version").stdin(Stdio::null()).output() {
        // Some write it to standard error.
        Ok(said) => Some(String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skip(&format!("{what_is_skipped}: {program} is not installed"));
            None
        }
        Err(error) => panic!("{program} cannot be started: {error}"),
    }
}

/// A running program.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) port: u16,
}

impl Daemon {
    /// Starts `program` with the arguments for a free port, and waits until a GET of `ready` answers 200. Its output is in
    /// the file `<program>.log` of the directory. For programs of which [`version`] has shown that they are installed.
    pub(crate) fn start(
        program: &str,
        directory: &Path,
        ready: &str,
        arguments: impl Fn(u16) -> Vec<String>,
    ) -> Self {
        let log = directory.join(format!("{program}.log"));
        // Between being found free and being used, a port can be taken by another test.
        for _ in 0..3 {
            let port = free_port();
            let output = fs::File::create(&log).expect("a log file");
            let child = Command::new("sh")
                .args(["-c", WRAPPER, "sh", program])
                .args(arguments(port))
                .current_dir(directory)
                .stdin(Stdio::piped())
                .stdout(output.try_clone().expect("a file"))
                .stderr(output)
                .spawn()
                .expect("a shell");
            let mut daemon = Self { child, port };
            if daemon.becomes_ready(ready) {
                return daemon;
            }
        }
        panic!("{program} does not start:\n{}", fs::read_to_string(&log).unwrap_or_default());
    }

    /// Whether it answers; `false` if it ends, or if it takes too long.
    fn becomes_ready(&mut self, ready: &str) -> bool {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            if get(self.port, ready).is_ok_and(|(status, _)| status == 200) {
                return true;
            }
            sleep(Duration::from_millis(50));
        }
        false
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            match self.child.try_wait() {
                Ok(None) => sleep(Duration::from_millis(20)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of 127.0.0.1 that nobody listens on just now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// A GET of 127.0.0.1: the status, and the body.
///
/// # Errors
/// If nobody listens, or what answers is not HTTP.
pub(crate) fn get(port: u16, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // HTTP/1.0: the end of the answer is the end of the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let no_http = || std::io::Error::new(ErrorKind::InvalidData, answer.to_string());
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(no_http)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(no_http)?;
    Ok((status, body.to_owned()))
}

/// Text for the query of a URL.
pub(crate) fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// A server that answers every request with a text, as an exporter of metrics does.
pub(crate) struct Exporter {
    pub(crate) port: u16,
    text: Arc<Mutex<String>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    pub(crate) fn start(text: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let text = Arc::new(Mutex::new(text.to_owned()));
        let ended = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (text, ended) = (Arc::clone(&text), Arc::clone(&ended));
            move || {
                for stream in listener.incoming() {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let text = text.lock().expect("a lock").clone();
                    // Whoever went away has no answer.
                    let _ = stream.and_then(|stream| answer(stream, &text));
                }
            }
        });
        Self { port, text, ended, thread: Some(thread) }
    }

    /// From now on it shows another text.
    pub(crate) fn show(&self, text: &str) {
        text.clone_into(&mut self.text.lock().expect("a lock"));
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the thread up.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, text: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => request.extend_from_slice(&buffer[..read]),
        }
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n\
         {text}",
        text.len()
    )
}

#[test]
fn an_exporter_shows_its_text_and_then_another() {
    let exporter = Exporter::start("a 1\n");
    assert_eq!(get(exporter.port, "/metrics").expect("an answer"), (200, "a 1\n".to_owned()));
    exporter.show("a 2\n");
    assert_eq!(get(exporter.port, "/metrics").expect("an answer"), (200, "a 2\n".to_owned()));
    let port = exporter.port;
    drop(exporter);
    assert!(get(port, "/metrics").is_err());
    assert_eq!(encoded("a{b=\"c\"}"), "a%7Bb%3D%22c%22%7D");
}
