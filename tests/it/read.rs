//! The command `read`, as a pod gives it: trees, files and devices in; exit code, termination message and log out.

use std::{
    fs::{self, File, Permissions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use volume_snapshotter::read::report::{Outcome, Reading};

use crate::test_cluster::BINARY;

/// A file that is never at its end, or nearly so. Not every sandbox has it.
const ENDLESS: &str = "/proc/self/pagemap";

/// A directory of a test, which goes with it.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Tree {
        static TREES: AtomicUsize = AtomicUsize::new(0);
        let number = TREES.fetch_add(1, Ordering::Relaxed);
        // Where other users may go too.
        let path = std::env::temp_dir().join(format!("volume-snapshotter-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("permissions");
        Tree(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, content).expect("a file");
        path
    }

    fn dir(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("a directory");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("permissions");
        path
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a reading came to.
#[derive(Debug)]
struct Ended {
    code: i32,
    reading: Reading,
    log: String,
}

fn begin(program: &[&str], paths: &[&Path], flags: &[&str], message: &Path) -> Child {
    Command::new(program[0])
        .args(&program[1..])
        .arg("read")
        .args(flags)
        .arg("--termination-log")
        .arg(message)
        .args(paths)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

fn finish(child: Child, message: &Path) -> Ended {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("its output");
    let log = String::from_utf8(stderr).expect("UTF-8");
    assert_eq!(String::from_utf8_lossy(&stdout), "", "{log}");
    let text = fs::read_to_string(message).unwrap_or_default();
    let reading = Reading::from_message(&text).unwrap_or_else(|| panic!("a message: {text:?}\n{log}"));
    assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
    Ended { code: status.code().expect("an exit code"), reading, log }
}

fn read_with(paths: &[&Path], flags: &[&str]) -> Ended {
    let place = Tree::new();
    let message = place.path("message");
    finish(begin(&[BINARY], paths, flags, &message), &message)
}

fn read(path: &Path) -> Ended {
    read_with(&[path], &[])
}

/// Makes a pipe, which the standard library cannot.
fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

#[test]
fn every_byte_of_every_file_is_read_and_nothing_else_is_touched() {
    let tree = Tree::new();
    tree.file("a", b"12345");
    tree.file("empty", b"");
    tree.file("deep/er/b", &[7; 700_000]);
    fs::hard_link(tree.path("a"), tree.path("deep/again")).expect("a link");
    // Round and round, and out of it.
    symlink("..", tree.path("deep/loop")).expect("a link");
    symlink("/proc", tree.path("out")).expect("a link");
    symlink("nowhere", tree.path("dangling")).expect("a link");
    pipe(&tree.path("pipe"));
    let _socket = UnixListener::bind(tree.path("socket")).expect("a socket");
    let hole = File::create(tree.path("sparse")).expect("a file");
    hole.set_len(1 << 40).expect("a hole");
    let mut hole = hole;
    hole.seek(SeekFrom::Start(1 << 39)).expect("a place");
    hole.write_all(b"in the middle").expect("a few bytes");
    hole.sync_all().expect("on the disk");
    let began = Instant::now();
    let found = read(&tree.0);
    assert_eq!(found.code, 0, "{}", found.log);
    assert!(began.elapsed() < Duration::from_secs(20), "holes are passed over");
    let Reading { outcome, files, bytes, directories, symlinks, special, .. } = found.reading;
    assert_eq!((outcome, files, directories, symlinks, special), (Outcome::Whole, 5, 3, 3, 2));
    let own = 5 + 5 + 700_000;
    // A hole ends where a block does.
    assert!((own + 13..own + 200_000).contains(&bytes), "{bytes}");
    assert_eq!((found.reading.unreadable, found.reading.denied, found.reading.empty), (0, 0, false));
    assert!(found.log.contains("everything was read: 5 files, "), "{}", found.log);
    let line: serde_json::Value =
        serde_json::from_str(found.log.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&line["exit"], &line["files"], &line["level"]), (&0.into(), &5.into(), &"INFO".into()));
}

#[test]
fn what_cannot_be_read_is_damage_and_the_rest_is_read_all_the_same() {
    let tree = Tree::new();
    let good = tree.file("good", b"12345");
    // The first page of a process is not there, which is an EIO.
    let bad = Path::new("/proc/self/mem");
    if File::open(bad)
        .and_then(|mut file| file.read(&mut [0; 8]))
        .err()
        .and_then(|error| error.raw_os_error())
        != Some(5)
    {
        eprintln!("SKIPPED: nothing here gives an EIO");
        return;
    }
    let found = read_with(&[bad, &good], &[]);
    assert_eq!((found.code, found.reading.outcome), (2, Outcome::Unreadable), "{}", found.log);
    assert_eq!((found.reading.unreadable, found.reading.files, found.reading.bytes), (1, 1, 5));
    assert_eq!(found.reading.named[0].path, "/proc/self/mem");
    assert!(found.reading.named[0].error.contains("os error 5"), "{:?}", found.reading);
    assert!(found.log.contains("/proc/self/mem cannot be read: "), "{}", found.log);
    assert!(!found.reading.empty, "what is damaged is not said to be empty");
}

/// Runs the binary as somebody who is not root, if the tests are run by root; otherwise they are not root anyway.
fn as_nobody(binary: &Path) -> Option<Vec<String>> {
    let binary = binary.to_str().expect("UTF-8").to_owned();
    if fs::metadata("/proc/self").expect("proc").uid() != 0 {
        return Some(vec![binary]);
    }
    let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"].map(str::to_owned);
    let works = Command::new(&user[0]).args(&user[1..]).arg("true").status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: the tests are run by root, and setpriv does not work");
        return None;
    }
    Some(user.into_iter().chain([binary]).collect())
}

#[test]
fn what_belongs_to_somebody_else_makes_it_fail_but_for_the_lost_and_found_at_the_top() {
    let tree = Tree::new();
    let (binary, messages) = (tree.path("binary"), tree.dir("messages", 0o777));
    fs::copy(BINARY, &binary).expect("a copy where others may go");
    let Some(program) = as_nobody(&binary) else { return };
    let program: Vec<&str> = program.iter().map(String::as_str).collect();
    let read = |name: &str| {
        let message = messages.join(name);
        finish(begin(&program, &[&tree.path(name)], &[], &message), &message)
    };
    tree.file("volume/mine", b"12345");
    tree.dir("volume/lost+found", 0o000);
    let found = read("volume");
    assert_eq!((found.code, found.reading.outcome), (0, Outcome::Whole), "{}", found.log);
    assert_eq!((found.reading.skipped, found.reading.files, found.reading.denied), (1, 1, 0));
    assert!(found.log.contains("lost+found belongs to root, and is left out"), "{}", found.log);
    assert!(found.log.contains("(1 left out)"), "{}", found.log);

    // Elsewhere it is a directory as any other, and a file of this name is a file.
    tree.dir("nested/deep/lost+found", 0o000);
    tree.file("nested/mine", b"12345");
    let found = read("nested");
    assert_eq!(
        (found.code, found.reading.outcome, found.reading.denied),
        (2, Outcome::Denied, 1),
        "{}",
        found.log
    );
    let key = tree.file("keys/key", b"secret");
    fs::set_permissions(&key, Permissions::from_mode(0o000)).expect("permissions");
    tree.dir("keys/inner", 0o000);
    tree.file("keys/other", b"12345");
    let found = read("keys");
    assert_eq!(
        (found.code, found.reading.outcome, found.reading.denied),
        (2, Outcome::Denied, 2),
        "{}",
        found.log
    );
    assert_eq!((found.reading.files, found.reading.bytes), (1, 5));
    let named: Vec<&str> =
        found.reading.named.iter().map(|one| one.path.rsplit('/').next().unwrap_or("")).collect();
    assert!(named.contains(&"key") && named.contains(&"inner"), "{named:?}");
    assert!(found.log.contains("/keys/key may not be read: "), "{}", found.log);
    assert!(found.log.contains("who may read is in docs/verify.md"), "{}", found.log);
    // And the volume itself.
    tree.dir("closed", 0o000);
    let found = read("closed");
    assert_eq!(
        (found.code, found.reading.outcome, found.reading.denied),
        (2, Outcome::Denied, 1),
        "{}",
        found.log
    );
}

#[test]
fn a_volume_with_nothing_in_it_is_a_failure_unless_that_is_allowed() {
    for prepare in [
        |_: &Tree| (),
        |tree: &Tree| drop(tree.dir("lost+found", 0o700)),
        |tree: &Tree| drop(tree.dir("a/b/c", 0o755)),
        |tree: &Tree| drop(tree.file("a/nothing", b"")),
        |tree: &Tree| symlink("/etc/passwd", tree.path("link")).expect("a link"),
    ] {
        let tree = Tree::new();
        prepare(&tree);
        let found = read(&tree.0);
        assert_eq!((found.code, found.reading.outcome), (2, Outcome::Empty), "{}", found.log);
        assert!(found.reading.empty);
        assert!(found.log.contains("there is nothing in it"), "{}", found.log);
        assert!(found.log.contains(&format!("there is nothing in {}\"", tree.0.display())), "{}", found.log);
        let allowed = read_with(&[&tree.0], &["--allow-empty"]);
        assert_eq!((allowed.code, allowed.reading.outcome), (0, Outcome::Whole), "{}", allowed.log);
        assert!(allowed.reading.empty);
    }
    // One of two is one too many.
    let (full, empty) = (Tree::new(), Tree::new());
    full.file("a", b"12345");
    let found = read_with(&[&full.0, &empty.0], &[]);
    assert_eq!(
        (found.code, found.reading.outcome, found.reading.bytes),
        (2, Outcome::Empty, 5),
        "{}",
        found.log
    );
}

#[test]
fn what_is_no_volume_is_refused_and_not_waited_for() {
    let tree = Tree::new();
    tree.file("a", b"12345");
    pipe(&tree.path("pipe"));
    for (path, said) in [
        (tree.path("missing"), "there is no "),
        (tree.path("a/below"), "there is no "),
        (tree.path("pipe"), "is neither a directory nor a file nor a block device"),
        ("/dev/null".into(), "is neither a directory nor a file nor a block device"),
    ] {
        let found = read_with(&[&path], &["--allow-empty"]);
        assert_eq!((found.code, found.reading.outcome), (2, Outcome::Incomplete), "{path:?}: {}", found.log);
        assert!(found.log.contains(said), "{}", found.log);
    }
    // A file by itself, and by a link, is read.
    symlink("a", tree.path("link")).expect("a link");
    for name in ["a", "link"] {
        let found = read(&tree.path(name));
        assert_eq!((found.code, found.reading.files, found.reading.bytes), (0, 1, 5), "{}", found.log);
    }
}

#[test]
fn names_that_would_move_a_cursor_are_escaped() {
    let tree = Tree::new();
    let (binary, messages) = (tree.path("binary"), tree.dir("messages", 0o777));
    fs::copy(BINARY, &binary).expect("a copy where others may go");
    let Some(program) = as_nobody(&binary) else { return };
    let program: Vec<&str> = program.iter().map(String::as_str).collect();
    let odd = tree.file("volume/\u{1b}[31mred\n\u{202e}x", b"12345");
    fs::set_permissions(&odd, Permissions::from_mode(0o000)).expect("permissions");
    let message = messages.join("message");
    let found = finish(begin(&program, &[&tree.path("volume")], &[], &message), &message);
    assert_eq!(found.reading.outcome, Outcome::Denied, "{}", found.log);
    let said = &found.reading.named[0].path;
    assert!(said.ends_with("/volume/\\u{1b}[31mred\\n\\u{202e}x"), "{said}");
    assert!(!found.log.contains(['\u{1b}', '\u{202e}']), "{}", found.log);
}

#[test]
fn a_reading_ends_when_its_time_is_over_and_says_how_far_it_is() {
    if !Path::new(ENDLESS).exists() {
        eprintln!("SKIPPED: there is no {ENDLESS}");
        return;
    }
    let began = Instant::now();
    let found = read_with(&[Path::new(ENDLESS)], &["--timeout", "1s", "--progress", "200ms"]);
    assert_eq!((found.code, found.reading.outcome), (1, Outcome::Incomplete), "{}", found.log);
    assert!((1.0..3.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    assert_eq!(found.reading.ended.as_deref(), Some("the time is over (--timeout)"));
    assert!(found.reading.bytes > 0 && found.reading.files == 0 && found.reading.duration_ms >= 1000);
    let progress: Vec<&str> = found.log.lines().filter(|line| line.contains("read so far: ")).collect();
    assert!(progress.len() >= 2, "{}", found.log);
    let last: serde_json::Value = serde_json::from_str(progress[progress.len() - 1]).expect("JSON");
    assert!(last["bytes"].as_u64() > Some(0) && last["rate"].as_u64() > Some(0), "{last}");
}

#[test]
fn a_reading_stops_within_a_second_when_it_is_told_to() {
    if !Path::new(ENDLESS).exists() {
        eprintln!("SKIPPED: there is no {ENDLESS}");
        return;
    }
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let place = Tree::new();
        let message = place.path("message");
        let child = begin(&[BINARY], &[Path::new(ENDLESS)], &["--progress", "100ms"], &message);
        sleep(Duration::from_millis(500));
        let sent = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
        assert!(sent.expect("kill").success());
        let told = Instant::now();
        let found = finish(child, &message);
        assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
        assert_eq!((found.code, found.reading.outcome), (code, Outcome::Incomplete), "{}", found.log);
        assert!(found.reading.ended.is_some_and(|why| why.starts_with("told to stop")));
    }
}

#[test]
fn large_directories_and_deep_ones_are_read_and_what_is_too_deep_is_not_passed_over_silently() {
    let tree = Tree::new();
    for number in 0..5000 {
        tree.file(&format!("many/{number}"), b"x");
    }
    let deep = "d/".repeat(400);
    tree.file(&format!("{deep}file"), b"12345");
    let found = read(&tree.0);
    assert_eq!(found.code, 0, "{}", found.log);
    assert_eq!((found.reading.files, found.reading.bytes, found.reading.directories), (5001, 5005, 402));
    tree.file(&format!("{deep}{deep}file"), b"12345");
    let found = read(&tree.0);
    assert_eq!((found.code, found.reading.outcome, found.reading.unreadable), (2, Outcome::Unreadable, 1));
    assert!(found.log.contains("it is deeper than 500 directories"), "{}", found.log);
    assert_eq!(found.reading.files, 5001);
}

#[test]
fn another_file_system_is_left_out_and_said_so() {
    // Which there are differs from place to place.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of_dev = |line: &&str| line.split(' ').nth(4).is_some_and(|at| at == "/dev/shm" || at == "/dev/pts");
    if !mounts.lines().any(|line| of_dev(&line)) {
        eprintln!("SKIPPED: nothing is mounted below /dev");
        return;
    }
    let found = read_with(&[Path::new("/dev")], &["--allow-empty"]);
    assert!(found.reading.skipped > 0 && found.reading.special > 0, "{:?}\n{}", found.reading, found.log);
    assert!(found.log.contains("is another file system, and is left out"), "{}", found.log);
}
