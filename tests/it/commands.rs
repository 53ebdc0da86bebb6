//! `list` and `restore` as a person at a keyboard gives them: arguments in; exit code, standard
//! output and standard error out.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use clap_mangen::Man;
use serde_json::Value;
use tokio::process::{Child, Command};
use volume_snapshotter::command;

use crate::test_cluster::{BINARY, TestCluster};

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    /// The termination message.
    pub(crate) message: String,
    pub(crate) took: Duration,
}

/// A command while it runs.
pub(crate) struct Saying {
    process: Child,
    began: Instant,
    message: std::path::PathBuf,
}

impl TestCluster {
    /// Gives a command with these rights, and waits for its end.
    pub(crate) async fn say(&self, rules: &Value, arguments: &[&str]) -> Said {
        self.say_with(rules, &[], arguments).await
    }

    /// As [`TestCluster::say`], with variables set.
    pub(crate) async fn say_with(
        &self,
        rules: &Value,
        variables: &[(&str, &str)],
        arguments: &[&str],
    ) -> Said {
        self.begin_to_say(rules, variables, arguments).await.finish().await
    }

    /// Gives a command and does not wait.
    pub(crate) async fn begin_to_say(
        &self,
        rules: &Value,
        variables: &[(&str, &str)],
        arguments: &[&str],
    ) -> Saying {
        let token = self.token(rules).await;
        let kubeconfig = self.file("kubeconfig", &self.kubeconfig_for(token));
        let message = self.file("termination-log", "");
        let process = Command::new(BINARY)
            .args(arguments)
            .env_clear()
            .env("KUBECONFIG", &kubeconfig)
            .env("RESTORE_TERMINATION_LOG", &message)
            .env("SNAPSHOT_TERMINATION_LOG", &message)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        Saying { process, began: Instant::now(), message }
    }
}

impl Saying {
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.process.id().expect("it still runs");
        let sent = std::process::Command::new("kill").args([format!("-{signal}"), id.to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    pub(crate) async fn finish(self) -> Said {
        let output = self.process.wait_with_output().await.expect("its output");
        Said {
            code: output.status.code().expect("an exit code"),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
            message: std::fs::read_to_string(&self.message).expect("the termination message"),
            took: self.began.elapsed(),
        }
    }
}

impl Said {
    /// Fails, with all that was said, unless it exited with `code`.
    #[track_caller]
    pub(crate) fn assert_exit(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "\n--- out\n{}\n--- err\n{}", self.out, self.err);
        self
    }

    /// Fails unless this was said on standard error.
    #[track_caller]
    pub(crate) fn assert_says(&self, text: &str) -> &Self {
        assert!(self.err.contains(text), "not said: {text}\n--- out\n{}\n--- err\n{}", self.out, self.err);
        self
    }
}

/// `UPDATE_GOLDEN=1 cargo test --test it man_pages` renews them.
#[test]
fn the_man_pages_are_those_of_the_command_line() {
    const PROGRAM: &str = "volume-snapshotter";
    let program = command::program(PROGRAM);
    let pages = [
        ("list", "volume-snapshotter-list"),
        ("restore", "volume-snapshotter-restore"),
        ("adopt", "volume-snapshotter-adopt"),
        ("simulate", "volume-snapshotter-simulate"),
        ("verify", "volume-snapshotter-verify"),
        ("read", "volume-snapshotter-read"),
    ];
    let pages = pages.into_iter().map(|(name, title)| {
        let subcommand = program.find_subcommand(name).expect("a subcommand").clone();
        (title, subcommand.name(title).bin_name(format!("{PROGRAM} {name}")).display_name(title))
    });
    for (title, page) in pages.chain([(PROGRAM, program.clone())]) {
        let mut made = Vec::new();
        Man::new(page).render(&mut made).expect("a page");
        let path = format!("{}/docs/man/{title}.1", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &made).expect("a page that can be written");
        }
        let kept = std::fs::read(&path).unwrap_or_default();
        let lines =
            |page: &[u8]| String::from_utf8_lossy(page).lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(&made), lines(&kept), "{path}: renew it with UPDATE_GOLDEN=1");
    }
}
