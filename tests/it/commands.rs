//! `list` and `restore` as a person at a keyboard gives them: arguments in; exit code, standard
//! output and standard error out.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::process::{Child, Command};

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
