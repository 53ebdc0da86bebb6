//! What a newcomer reads and types: the documents against the justfile, the files, the command line and the cluster's
//! own tools. A document that names what is not there fails here, and not in somebody's terminal.
//!
//! Commands of this program are carried out, against the fake API server; of kubectl those that it can answer. What needs
//! `just` or `kubectl` is skipped where they are not installed, and says so; most needs neither.

mod kubectl;
mod markdown;
mod recipes;
mod shell;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    env, fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use fake_apiserver::{GroupApi, Options, objects};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use volume_snapshotter::settings::{NAMES, RESTORE_NAMES, VERIFY_NAMES};

use crate::{
    alerts,
    manifests::{self, top},
    test_cluster::{BINARY, TestCluster, embedded},
};
use markdown::{Block, Page};
use shell::Line;

/// The first directory of a path in the repository.
const DIRECTORIES: [&str; 9] =
    [".ci", ".github", "benches", "deploy", "docs", "examples", "kustomize", "src", "tests"];

/// What else a person is told to type, and who has it.
const PROGRAMS: [&str; 15] = [
    "aws", "cargo", "cosign", "docker", "echo", "etcdctl", "etcdutl", "jq", "just", "kind", "kubeadm", "mv",
    "promtool", "sed", "test",
];

/// Flags of others that sentences name: of the API server, the snapshot controller, cargo, restic, docker, kubectl,
/// kube-state-metrics, etcd and MySQL.
const FLAGS_OF_OTHERS: [&str; 25] = [
    "--skip-networking",
    "--skip-grant-tables",
    "--max-requests-inflight",
    "--max-mutating-requests-inflight",
    "--kube-api-qps",
    "--kube-api-burst",
    "--worker-threads",
    "--locked",
    "--keep-daily",
    "--keep-hourly",
    "--keep-last",
    "--keep-tag",
    "--keep-within",
    "--keep-within-hourly",
    "--keep-*",
    "--force",
    "--custom-resource-state-config-file",
    "--bump-revision",
    "--quota-backend-bytes",
    "--name",
    "--initial-cluster",
    "--initial-cluster-token",
    "--initial-advertise-peer-urls",
    "--metric-annotations-allowlist",
    "--persistence.file",
];

fn skip(what: &str) {
    // Not with eprintln!, which the test harness swallows when a test passes.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {what}\n").as_bytes());
}

fn text(file: &str) -> String {
    fs::read_to_string(top().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// What a program says, or nothing where it is not installed.
fn output(command: &mut Command) -> Option<Output> {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{command:?}: {error}"),
    }
}

/// Fails with all problems at once: whoever mends a document wants to see every line.
#[track_caller]
fn none_of(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// The files of the repository that people read, from its top.
fn files() -> Vec<PathBuf> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        let entries = fs::read_dir(top().join(directory)).expect("a directory of the repository");
        for entry in entries.map(|entry| entry.expect("an entry of a directory")) {
            let name = entry.file_name().into_string().expect("a name is UTF-8");
            let path = directory.join(&name);
            match entry.file_type().expect("a file's type") {
                // What builds and tests leave behind, and what is recorded of others.
                kind if kind.is_dir() => {
                    let ours = !name.starts_with("target") && name != ".git";
                    if ours && path != Path::new("tests/data") {
                        walk(&path, found);
                    }
                }
                kind if kind.is_file() => found.push(path),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new(""), &mut found);
    found.sort();
    assert!(found.iter().any(|file| file == Path::new("README.md")));
    found
}

/// The pages of the documentation.
fn pages() -> Vec<Page> {
    let is_page = |file: &&PathBuf| {
        let directory = file.parent().expect("a file is somewhere");
        let shown = directory == Path::new("") || directory == Path::new("docs");
        shown && file.extension().is_some_and(|extension| extension == "md")
    };
    let pages: Vec<Page> = files()
        .iter()
        .filter(is_page)
        .map(|file| Page::new(file.to_str().expect("UTF-8"), &text(file.to_str().expect("UTF-8"))))
        .collect();
    assert!(pages.len() > 8, "{}", pages.len());
    pages
}

fn blocks<'a>(pages: &'a [Page], language: &'a str) -> impl Iterator<Item = &'a Block> {
    pages.iter().flat_map(|page| &page.blocks).filter(move |block| block.language == language)
}

/// Every command that is shown, in a block or in a sentence, with its place.
fn lines(pages: &[Page]) -> Vec<(String, Line)> {
    let mut lines = Vec::new();
    for block in blocks(pages, "sh") {
        lines.extend(shell::commands(&block.text).into_iter().map(|line| (block.cluster.clone(), line)));
    }
    for (cluster, code) in pages.iter().flat_map(Page::spans) {
        // In a sentence only what is unmistakably a command: a program's name alone is a name.
        let first = code.split_whitespace().find(|word| !word.contains('='));
        // Of this program a command without anything is the name of a command.
        let whole = code.split_whitespace().count() > if first == Some("volume-snapshotter") { 2 } else { 1 };
        if whole && first.is_some_and(|word| ["cargo", "kubectl", "volume-snapshotter"].contains(&word)) {
            lines.extend(shell::commands(code).into_iter().map(|line| (cluster.clone(), line)));
        }
    }
    lines
}

/// The lines of one program, without its name.
fn lines_of(pages: &[Page], program: &str) -> Vec<(String, Vec<String>)> {
    let lines = lines(pages).into_iter().filter(|(_, line)| line.words[0] == program);
    lines.map(|(cluster, line)| (cluster, line.words[1..].to_vec())).collect()
}

// --- What is named -------------------------------------------------------------------------------

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut problems = Vec::new();
    for page in &pages {
        for (cluster, target) in page.links().filter(|(_, target)| !target.contains("://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let directory = Path::new(&page.path).parent().expect("a page is somewhere");
            let path = match file {
                "" => PathBuf::from(&page.path),
                file => directory.join(file),
            };
            let Ok(found) = top().join(&path).canonicalize() else {
                problems.push(format!("{cluster}: there is no {target}"));
                continue;
            };
            let other = pages
                .iter()
                .find(|page| top().join(&page.path).canonicalize().is_ok_and(|path| path == found));
            if !anchor.is_empty() && !other.is_some_and(|page| page.anchors().contains(anchor)) {
                problems.push(format!("{cluster}: there is no heading for {target}"));
            }
        }
    }
    none_of(&problems);
}

#[test]
fn every_file_that_is_named_exists() {
    let (files, pages) = (files(), pages());
    let names: BTreeSet<&str> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
    // What a page has the reader write, each block with its file's name in the first line.
    let first_lines =
        pages.iter().flat_map(|page| &page.blocks).filter_map(|block| block.text.lines().next());
    let written: Vec<&str> = first_lines.filter_map(|line| line.strip_prefix("# ")).collect();
    let mut named: Vec<(String, String)> = Vec::new();
    for (cluster, code) in pages.iter().flat_map(Page::spans) {
        named.extend(code.split_whitespace().map(|word| (cluster.clone(), word.to_owned())));
        let is_file = code.rsplit_once('.').is_some_and(|(stem, extension)| {
            let known = ["env", "json", "lock", "md", "rs", "sh", "toml", "yaml", "yml"].contains(&extension);
            known && !stem.is_empty() && !code.contains([' ', '/', '*'])
        });
        if is_file && !names.contains(code) {
            named.push((cluster, format!("tests/no/such/{code}")));
        }
    }
    for block in pages.iter().flat_map(|page| &page.blocks) {
        let words = block.text.split_whitespace().filter(|word| !word.contains("://"));
        named.extend(words.map(|word| (block.cluster.clone(), word.to_owned())));
    }
    let mut problems = Vec::new();
    let mut seen = 0;
    for (cluster, word) in named {
        let mut path = word.trim_matches(|c: char| "\"'()[],;:".contains(c));
        while let Some(inner) = path.strip_prefix("../") {
            path = inner;
        }
        let path = path.trim_end_matches(['.', '/']);
        let Some((directory, _)) = path.split_once('/').filter(|_| !path.contains(['*', '$', '<'])) else {
            continue;
        };
        if !DIRECTORIES.contains(&directory) {
            continue;
        }
        seen += 1;
        let is_written = written.iter().any(|file| Path::new(file).starts_with(path));
        if !is_written && !top().join(path).exists() {
            problems.push(format!("{cluster}: there is no {path}"));
        }
    }
    assert!(seen > 30, "{seen}");
    none_of(&problems);
}

/// Whole words of a text that begin so.
fn words_from<'a>(
    text: &'a str,
    prefix: &'a str,
    further: impl Fn(char) -> bool + Copy + 'a,
) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).filter_map(move |(start, _)| {
        let before = text[..start].chars().next_back();
        let length = text[start..].find(|c| !further(c)).unwrap_or(text.len() - start);
        // In the middle of another word it is another word.
        let is_whole = before.is_none_or(|c| !(c.is_alphanumeric() || "_-/.".contains(c)));
        is_whole.then(|| text[start..start + length].trim_end_matches(['-', '.']))
    })
}

#[test]
fn every_setting_and_label_that_is_named_exists_and_every_setting_is_in_the_readme() {
    let tests: String = files()
        .iter()
        .filter(|file| {
            file.starts_with("tests") && file.extension().is_some_and(|extension| extension == "rs")
        })
        .filter(|file| !file.starts_with("tests/it/documents"))
        .map(|file| text(file.to_str().expect("UTF-8")))
        .collect();
    let sources: String = files()
        .iter()
        .filter(|file| file.starts_with("src") || file.starts_with("kustomize"))
        .map(|file| text(file.to_str().expect("UTF-8")))
        .collect();
    let variable = |c: char| c.is_ascii_uppercase() || c == '_' || c == '*';
    let label = |c: char| c.is_ascii_lowercase() || "-/.".contains(c);
    let mut problems = Vec::new();
    for page in pages() {
        let text = text(&page.path);
        for name in words_from(&text, "SNAPSHOT_", variable)
            .chain(words_from(&text, "RESTORE_", variable))
            .chain(words_from(&text, "VERIFY_", variable))
        {
            let known = NAMES.contains(&name)
                || RESTORE_NAMES.contains(&name)
                || VERIFY_NAMES.contains(&name)
                || name.ends_with("_*");
            if !known {
                problems.push(format!("{}: there is no setting {name}", page.path));
            }
        }
        for name in words_from(&text, "SNAPSHOTTER_", variable).filter(|name| !tests.contains(name)) {
            problems.push(format!("{}: no test knows {name}", page.path));
        }
        // The rules for one schedule: its name is the user's.
        let known = |name: &str| sources.contains(name.split("/retention.").next().unwrap_or_default());
        for name in words_from(&text, "volume-snapshotter/", label).filter(|name| !known(name)) {
            problems.push(format!("{}: nothing knows the label {name}", page.path));
        }
    }
    let readme = text("README.md");
    for name in NAMES {
        if !readme.contains(&format!("`{name}`")) {
            problems.push(format!("README.md: {name} is missing"));
        }
    }
    none_of(&problems);
}

#[test]
fn every_overlay_and_component_is_in_the_documents() {
    let (readme, components, changelog) =
        (text("README.md"), text("docs/components.md"), text("CHANGELOG.md"));
    let mut problems = Vec::new();
    let mut check = |directory: &str, is_named: &dyn Fn(&str) -> bool| {
        for entry in fs::read_dir(top().join(directory)).expect("a directory of the repository") {
            let name = entry.expect("an entry of a directory").file_name().into_string().expect("UTF-8");
            if !is_named(&name) {
                problems.push(format!("no page tells of {directory}/{name}"));
            }
        }
    };
    check("deploy/overlays", &|name| readme.contains(&format!("`deploy/overlays/{name}`")) || name == "kind");
    // Several that differ in their last word are listed by it.
    let last = |name: &str| name.rsplit('-').next().map(|word| format!("-{word}`")).unwrap_or_default();
    check("kustomize/components", &|name| {
        let listed =
            components.contains(&format!("`{name}`")) || components.contains(&format!("`{}", last(name)));
        listed && changelog.contains(&format!("`{name}`"))
    });
    none_of(&problems);
}

#[test]
fn every_alert_leads_to_a_section_of_the_runbook_that_names_it_and_is_in_the_table() {
    let rules = alerts::rules();
    let runbook = text("docs/runbook.md");
    let table = text("docs/monitoring.md");
    let mut problems = Vec::new();
    for (name, alert) in alerts::alerts(&rules) {
        let url = alert["annotations"]["runbook_url"].as_str().unwrap_or_default();
        let Some(("https://github.com/OWNER/volume-snapshotter/blob/main/docs/runbook.md", anchor)) =
            url.split_once('#')
        else {
            problems.push(format!("{name}: {url} is not the runbook"));
            continue;
        };
        let section = markdown::section(&runbook, anchor);
        if !section.is_some_and(|section| section.contains(name)) {
            problems.push(format!("{name}: no section {anchor} of the runbook is about it"));
        }
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        let row = format!("| `{name}` | {severity} | ");
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with(&row)).collect();
        if !rows.iter().any(|line| line.ends_with(&format!("| [runbook](runbook.md#{anchor}) |"))) {
            problems.push(format!("docs/monitoring.md: {row}…: {rows:?}"));
        }
    }
    // Nor is an alert named that there is not.
    let known: Vec<&str> = alerts::alerts(&rules).into_keys().collect();
    for page in pages() {
        let text = text(&page.path);
        for name in words_from(&text, "VolumeSnapshotter", char::is_alphanumeric) {
            if !known.contains(&name) {
                problems.push(format!("{}: there is no alert {name}", page.path));
            }
        }
    }
    none_of(&problems);
}

#[test]
fn the_groups_of_the_rules_are_cut_out_as_the_page_says() {
    let page = Page::new("docs/monitoring.md", &text("docs/monitoring.md"));
    let block = page.blocks.iter().find(|block| block.text.contains("> volume-snapshotter.rules.yaml"));
    let line = block.and_then(|block| block.text.lines().next()).expect("a line that cuts them out");
    let line = line.replace(" > volume-snapshotter.rules.yaml", "");
    let said = output(Command::new("sh").args(["-c", &line]).current_dir(top())).expect("a shell");
    let cut: Value = serde_saphyr::from_str(&String::from_utf8(said.stdout).expect("UTF-8")).expect("YAML");
    assert_eq!(cut, alerts::rules());
}

#[test]
fn every_flag_that_a_sentence_names_is_somebodys() {
    let mut known: BTreeSet<String> = FLAGS_OF_OTHERS.map(str::to_owned).into();
    for arguments in [
        &["--help"][..],
        &["list", "--help"],
        &["restore", "--help"],
        &["adopt", "--help"],
        &["verify", "--help"],
    ] {
        let said = output(Command::new(BINARY).args(arguments)).expect("the binary");
        let help = String::from_utf8(said.stdout).expect("UTF-8");
        let words = help.split(|c: char| !(c.is_alphanumeric() || c == '-'));
        known.extend(words.filter(|word| word.starts_with("--")).map(str::to_owned));
    }
    let pages = pages();
    let spans = pages.iter().flat_map(Page::spans).filter(|(_, code)| code.starts_with("--"));
    let flags = spans.filter_map(|(cluster, code)| Some((cluster, code.split([' ', '=']).next()?)));
    // What stands behind `--` alone goes to another program.
    let flags = flags.filter(|(_, flag)| *flag != "--");
    let unknown = flags.filter(|(_, flag)| !known.contains(*flag));
    none_of(
        &unknown.map(|(cluster, flag)| format!("{cluster}: nobody has the flag {flag}")).collect::<Vec<_>>(),
    );
}

// --- What is typed -------------------------------------------------------------------------------

#[test]
fn every_block_of_commands_is_a_script_of_known_programs() {
    let pages = pages();
    let mut problems = Vec::new();
    for block in blocks(&pages, "sh") {
        for shell in ["sh", "dash", "bash", "zsh"] {
            let Some(read) = output(Command::new(shell).args(["-n", "-c", &block.text])) else { continue };
            if !read.status.success() {
                problems.push(format!(
                    "{}: {shell}: {}",
                    block.cluster,
                    String::from_utf8_lossy(&read.stderr)
                ));
            }
        }
        for line in shell::commands(&block.text) {
            let program = line.words[0].as_str();
            let known = PROGRAMS.contains(&program) || ["kubectl", "volume-snapshotter"].contains(&program);
            if !known {
                problems.push(format!("{}: what is {program}?", block.cluster));
            }
        }
    }
    none_of(&problems);
}

#[test]
fn every_kubectl_line_is_one_that_kubectl_has() {
    let lines = lines_of(&pages(), "kubectl");
    assert!(lines.len() > 50, "{}", lines.len());
    let mut known = kubectl::Flags::default();
    let mut problems = Vec::new();
    let mut flags_unknown = false;
    for (cluster, arguments) in lines {
        let command = match kubectl::command(&arguments) {
            Ok(command) => command,
            Err(problem) => {
                problems.push(format!("{cluster}: {problem}: kubectl {}", arguments.join(" ")));
                continue;
            }
        };
        let Some(known) = known.of(&command) else {
            flags_unknown = true;
            continue;
        };
        for flag in kubectl::flags(&arguments).filter(|flag| !known.contains(*flag)) {
            problems.push(format!("{cluster}: kubectl {} has no flag {flag}", command.join(" ")));
        }
    }
    if flags_unknown {
        skip("the flags of kubectl lines are not checked: kubectl is not installed");
    }
    none_of(&problems);
}

#[test]
fn no_line_waits_for_a_job_to_succeed_alone() {
    // One that has failed would be waited for until the time is up.
    let mut problems = Vec::new();
    let mut ends = 0;
    for (cluster, arguments) in lines_of(&pages(), "kubectl") {
        let waits = arguments.first().is_some_and(|word| word == "wait");
        let has = |flag: &str| arguments.iter().any(|word| word == flag);
        if waits && has("--for=condition=complete") && !has("--timeout=10s") {
            problems.push(format!("{cluster}: kubectl {}", arguments.join(" ")));
        }
        ends += usize::from(waits && has("--for=jsonpath={.status.conditions[0].status}=True"));
    }
    assert!(ends > 0, "nothing waits for the end of a Job any more");
    none_of(&problems);
}

#[test]
fn every_cargo_line_names_packages_targets_and_tests_that_exist() {
    let said = output(Command::new(env!("CARGO")).current_dir(top()).args([
        "metadata",
        "--no-deps",
        "--offline",
        "--locked",
        "--format-version",
        "1",
    ]));
    let metadata: Value = serde_json::from_slice(&said.expect("cargo").stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let targets: Vec<&Value> =
        packages.iter().flat_map(|package| package["targets"].as_array().expect("targets")).collect();
    let is_target =
        |kind: &str, name: &str| targets.iter().any(|one| one["kind"][0] == *kind && one["name"] == *name);
    let mut lines = lines_of(&pages(), "cargo");
    for (file, script) in [("justfile", text("justfile")), (".ci/run", text(".ci/run"))] {
        let commands = shell::commands(&script).into_iter().filter(|line| line.words[0] == "cargo");
        lines.extend(commands.map(|line| (file.to_owned(), line.words[1..].to_vec())));
    }
    assert!(lines.len() > 15, "{}", lines.len());
    let mut problems = Vec::new();
    for (cluster, words) in lines {
        for pair in words.windows(2) {
            let [flag, name] = pair else { continue };
            let exists = match flag.as_str() {
                "--package" | "-p" => packages.iter().any(|package| package["name"] == name.as_str()),
                "--example" => is_target("example", name),
                "--bench" => is_target("bench", name),
                "--bin" => is_target("bin", name),
                "--test" => is_target("test", name),
                _ => true,
            };
            if !exists {
                problems.push(format!("{cluster}: cargo {}: there is no {name}", words.join(" ")));
            }
        }
        // Which of the integration tests: a module, or a part of a test's name.
        let filter = words.iter().position(|word| word == "it").and_then(|index| words.get(index + 1));
        if let Some(filter) = filter.filter(|filter| !filter.starts_with('-')) {
            let is_there = |file: String| top().join(file).exists();
            let known =
                is_there(format!("tests/it/{filter}.rs")) || is_there(format!("tests/it/{filter}/mod.rs"));
            if !known {
                problems.push(format!("{cluster}: there are no tests {filter}"));
            }
        }
    }
    none_of(&problems);
}

#[test]
fn every_yaml_that_is_shown_is_what_an_api_server_reads() {
    let pages = pages();
    let mut texts: Vec<(String, String)> = blocks(&pages, "yaml")
        .chain(blocks(&pages, "text").filter(|block| block.text.contains("apiVersion:")))
        .map(|block| (block.cluster.clone(), block.text.clone()))
        .collect();
    for (cluster, line) in lines(&pages) {
        texts.extend(line.document.filter(|text| text.contains("apiVersion:")).map(|text| (cluster, text)));
    }
    assert!(texts.len() > 4, "{}", texts.len());
    let mut problems = Vec::new();
    for (cluster, text) in texts {
        match serde_saphyr::from_multiple::<Value>(&text) {
            Err(error) => problems.push(format!("{cluster}: {error}")),
            Ok(documents) => {
                for document in documents {
                    // Those of docs are rendered with the manifests.
                    let rendered =
                        ["Kustomization", "Component"].iter().any(|kind| document["kind"] == *kind);
                    if let Some(problem) = (!rendered).then(|| manifests::read(&document).err()).flatten() {
                        problems.push(format!("{cluster}: {problem}"));
                    }
                }
            }
        }
    }
    none_of(&problems);
}

// --- What is carried out -------------------------------------------------------------------------

/// Resources of which kubectl lines can be carried out, in every spelling that the documents use.
const SERVED: [&str; 12] = [
    "cronjob",
    "job",
    "jobs",
    "namespace",
    "persistentvolumeclaim",
    "pod",
    "pods",
    "pvc",
    "volumesnapshot",
    "volumesnapshotclass",
    "volumesnapshotcontent",
    "volumesnapshots",
];

/// With TLS, for kubectl gives no token to a server without.
fn with_tls() -> Options {
    Options { tls: true, group_api: GroupApi::V1, ..Options::default() }
}

/// What the documents speak of: claims and snapshots by the names that they have there. The kubeconfig of a person who
/// may do everything is answered.
fn furnish(cluster: &TestCluster, claims: &[&str]) -> PathBuf {
    let fake = cluster.fake();
    let namespace = cluster.namespace.as_str();
    let hour_ago = Timestamp::now() - SignedDuration::from_hours(1);
    fake.put(objects::namespace("shop"));
    fake.put(objects::namespace("etcd-snapshot"));
    fake.put(objects::storage_class("default"));
    for name in claims {
        let mut claim = objects::bound_claim(namespace, name, &[]);
        claim["metadata"]["creationTimestamp"] = json!("2019-01-01T00:00:00Z");
        fake.put(claim);
    }
    for (name, claim, time) in [
        ("volume-snapshot-0a1b2c3d", "data", "2020-01-01T00:00:00Z".to_owned()),
        ("volume-snapshot-5b90e6a1", "data", hour_ago.to_string()),
        ("volume-snapshot-93aa07de", "data-shop-0", hour_ago.to_string()),
        ("etcd-snapshot-0a1b2c3d", "etcd-snapshot", hour_ago.to_string()),
        ("disk-0a1b2c3d", "outside-disk", hour_ago.to_string()),
        ("before-upgrade-0a1b2c3d", "data", hour_ago.to_string()),
    ] {
        let mut snapshot = objects::ready_snapshot(namespace, name, claim, time);
        snapshot["metadata"]["labels"]["volume-snapshotter/run"] = json!("before-upgrade");
        snapshot["metadata"]["labels"]["release"] = json!("1.2.3");
        fake.put(snapshot);
    }
    let of_shop = [("volume-snapshotter/group", "shop")];
    let mut group = objects::ready_group_snapshot(namespace, "of-shop", &of_shop, "2020-01-01T00:00:00Z");
    group["metadata"]["annotations"]["volume-snapshotter/claim-uids"] = json!("data=1,logs=2");
    let group = fake.put(group);
    for claim in ["data", "logs"] {
        fake.put(objects::member(&group, claim));
    }
    cluster.file("kubeconfig", &fake.kubeconfig(fake.admin_token(), namespace))
}

/// The command with nothing in its environment but the kubeconfig and what every program is given.
fn in_place(program: &str, kubeconfig: &Path) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program);
    command.env_clear().env("KUBECONFIG", kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
    command.envs(["PATH", "HOME"].into_iter().filter_map(|name| Some((name, env::var_os(name)?))));
    command
}

#[tokio::test]
async fn every_line_of_this_program_succeeds_where_there_is_what_the_page_speaks_of() {
    let mut done = Vec::new();
    let problems = RefCell::new(Vec::new());
    for (place_of_line, line) in lines(&pages()) {
        // A sentence names the program without arguments.
        if line.words[0] != "volume-snapshotter" || done.contains(&line) {
            continue;
        }
        embedded(with_tls(), async |cluster| {
            // The claim of the StatefulSet was deleted before it is restored.
            let kubeconfig = furnish(cluster, &["data", "logs"]);
            let mut command = in_place(BINARY, &kubeconfig);
            let variables = line.variables.iter().filter_map(|variable| variable.split_once('='));
            let said =
                command.envs(variables).args(&line.words[1..]).output().await.expect("the binary starts");
            if !said.status.success() {
                let said = String::from_utf8_lossy(&said.stderr).into_owned();
                problems.borrow_mut().push(format!("{place_of_line}: {line:?}: {said}"));
            }
        })
        .await;
        done.push(line);
    }
    assert!(done.len() > 6, "{done:?}");
    none_of(&problems.into_inner());
}

#[tokio::test]
async fn kubectl_carries_out_every_line_on_claims_and_snapshots() {
    if output(Command::new("kubectl").arg("version").arg("--client")).is_none() {
        return skip("the documents' kubectl lines are not carried out: kubectl is not installed");
    }
    let mut done = Vec::new();
    let problems = RefCell::new(Vec::new());
    for (place_of_line, line) in lines(&pages()) {
        let Ok(command) = kubectl::command(&line.words[1..]) else { continue };
        let verb = command.len();
        let of = line.words.iter().skip(1 + verb).find(|word| !word.starts_with('-')).map(String::as_str);
        let of = match command.as_slice() {
            // What kubectl makes of its own types it sends as protobuf, which the fake API server does not read.
            ["create", _] => None,
            ["create"] => line.document.as_deref().map(|_| "pvc"),
            ["delete" | "wait", ..] if of.is_none_or(|of| of.contains("job")) => None,
            _ => of,
        };
        // What takes the output of others, or watches, is for people.
        let alone = !line.words.iter().any(|word| word.contains("$(") || word.contains("$"));
        let is_served = of.is_some_and(|of| SERVED.contains(&of));
        if line.words[0] != "kubectl" || !is_served || !alone || done.contains(&line) {
            continue;
        }
        embedded(with_tls(), async |cluster| {
            let kubeconfig = furnish(cluster, &["data", "data-shop-0", "logs"]);
            let snapshots = cluster.fake().list("volumesnapshots", &cluster.namespace);
            let content =
                snapshots[0]["status"]["boundVolumeSnapshotContentName"].as_str().expect("a content");
            cluster.fake().put(json!({
                "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
                "metadata": {"name": content}, "spec": {"deletionPolicy": "Retain"},
            }));
            cluster.fake().put(json!({
                "apiVersion": "batch/v1", "kind": "CronJob",
                "metadata": {"name": "volume-snapshotter", "namespace": cluster.namespace}, "spec": {},
            }));
            let name = match of {
                Some("volumesnapshotclass") => "default",
                Some("pvc") => "data",
                _ => "volume-snapshot-0a1b2c3d",
            };
            let words = line.words[1..].iter().map(|word| match word.as_str() {
                "NAME" => name,
                "CONTENT" => content,
                word => word,
            });
            let mut command = in_place("kubectl", &kubeconfig);
            command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
            if let Some(document) = &line.document {
                let document = fs::File::open(cluster.file("document", document)).expect("a file");
                command.stdin(document);
            }
            let said = command.output().await.expect("kubectl starts");
            if !said.status.success() {
                let said = String::from_utf8_lossy(&said.stderr).into_owned();
                problems.borrow_mut().push(format!("{place_of_line}: {}: {said}", line.words.join(" ")));
            }
        })
        .await;
        done.push(line);
    }
    assert!(done.len() > 15, "{}", done.len());
    none_of(&problems.into_inner());
}

/// A block of the README with this line in it.
fn block_with(line: &str) -> String {
    let page = Page::new("README.md", &text("README.md"));
    let found = page.blocks.into_iter().find(|block| block.text.contains(line));
    found.unwrap_or_else(|| panic!("no block of the README has {line:?}")).text
}

fn kubectl_is_missing(what: &str) -> bool {
    let missing = output(Command::new("kubectl").args(["version", "--client"])).is_none();
    if missing {
        skip(&format!("{what}: kubectl is not installed"));
    }
    missing
}

#[tokio::test]
async fn the_wait_for_a_job_ends_however_the_job_does_and_its_exit_code_tells() {
    if kubectl_is_missing("the wait for a Job is not tried") {
        return;
    }
    let block = block_with("kubectl wait job/before-upgrade");
    let waits = block.split_once("kubectl wait").expect("it waits").1;
    // Whoever waits in a test gives up sooner.
    let script = format!("kubectl wait{waits}").replace("--timeout=1h", "--timeout=60s");
    embedded(with_tls(), async |cluster| {
        let kubeconfig = furnish(cluster, &["data", "data-shop-0"]);
        let job = |name: &str, conditions: &[&str]| {
            let conditions: Vec<Value> =
                conditions.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
            cluster.fake().put(json!({
                "apiVersion": "batch/v1", "kind": "Job",
                "metadata": {"name": name, "namespace": cluster.namespace}, "spec": {},
                "status": if conditions.is_empty() { json!({"active": 1}) } else { json!({"conditions": conditions}) },
            }));
        };
        job("complete", &["SuccessCriteriaMet", "Complete"]);
        job("failed", &["FailureTarget", "Failed"]);
        // As clusters before 1.31 have it.
        job("failed-there", &["Failed"]);
        job("failing", &[]);
        job("running", &[]);
        let wait = async |name: &str| {
            let script = script.replace("job/before-upgrade", &format!("job/{name}"));
            let mut command = in_place("sh", &kubeconfig);
            let said = command.args(["-c", &script]).output().await.expect("a shell");
            (said.status.success(), String::from_utf8_lossy(&said.stderr).into_owned())
        };
        let later = async |name: &str, conditions: &[&str]| {
            // Long enough for kubectl to have begun to watch.
            tokio::time::sleep(Duration::from_secs(2)).await;
            job(name, conditions);
        };
        let began = Instant::now();
        let (complete, failed, failed_there, missing, failing, running, (), ()) = tokio::join!(
            wait("complete"),
            wait("failed"),
            wait("failed-there"),
            wait("missing"),
            wait("failing"),
            wait("running"),
            later("failing", &["FailureTarget", "Failed"]),
            later("running", &["SuccessCriteriaMet", "Complete"]),
        );
        assert!(complete.0 && running.0, "{complete:?} {running:?}");
        for failed in [failed, failed_there, failing] {
            assert!(!failed.0 && failed.1.contains("timed out waiting"), "{failed:?}");
        }
        assert!(!missing.0 && missing.1.contains("not found"), "{missing:?}");
        assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    })
    .await;
}

/// A Deployment of one container with these volumes.
fn deployment(volumes: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": "shop"}},
            "template": {
                "metadata": {"labels": {"app": "shop"}},
                "spec": {"containers": [{"name": "shop", "image": "shop"}], "volumes": volumes},
            },
        },
    })
}

#[tokio::test]
async fn the_block_that_points_a_deployment_at_the_new_claim_changes_that_volume_and_no_other() {
    if kubectl_is_missing("the patch of a Deployment is not tried") {
        return;
    }
    let block = block_with("kubectl patch deployment shop");
    let commands = shell::commands(&block);
    let patch = commands.iter().find(|line| line.words[1] == "patch").expect("a patch").words.clone();
    embedded(with_tls(), async |cluster| {
        let kubeconfig = furnish(cluster, &["data", "data-shop-0"]);
        let volumes = json!([
            {"name": "settings", "configMap": {"name": "shop"}},
            {"name": "files", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "logs", "persistentVolumeClaim": {"claimName": "logs"}},
        ]);
        let file = cluster.file("deployment", &deployment(&volumes).to_string());
        let file = file.to_str().expect("UTF-8");
        // Of a file, which kubectl changes as an API server would.
        let words = patch[1..].iter().filter(|word| !["deployment", "shop"].contains(&word.as_str()));
        let words = words.map(|word| word.replace("$volume", "files"));
        let mut command = in_place("kubectl", &kubeconfig);
        let command = command.args(words).args(["--local", "--filename", file, "--output", "json"]);
        let said = command.output().await.expect("kubectl starts");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let patched: Value = serde_json::from_slice(&said.stdout).expect("JSON");
        let in_order = |volumes: &Value| {
            let mut volumes = volumes.as_array().expect("volumes").clone();
            volumes.sort_by_key(|one| one["name"].to_string());
            volumes
        };
        let mut expected = volumes;
        expected[1]["persistentVolumeClaim"]["claimName"] = json!("data-restored");
        assert_eq!(in_order(&patched["spec"]["template"]["spec"]["volumes"]), in_order(&expected));
    })
    .await;
}

/// Runs a script with programs in place of kubectl and of the binary that write down how they were called. The n-th call
/// fails. Which calls there were is answered, each by its subcommand.
fn calls(cluster: &TestCluster, script: &str, failing: usize, volume: &str) -> Vec<String> {
    let directory = cluster.directory("programs");
    let log = directory.join("log");
    fs::write(&log, "").expect("a log");
    for program in ["kubectl", "volume-snapshotter"] {
        let text = format!(
            "#!/bin/sh\necho \"$1\" >> {log}\n[ \"$(wc -l < {log})\" -ne {failing} ] || exit 1\n\
             case \"$1\" in get) echo \"{volume}\" ;; esac\n",
            log = log.display()
        );
        let path = directory.join(program);
        fs::write(&path, text).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program can be run");
    }
    let path = format!("{}:{}", directory.display(), env::var("PATH").unwrap_or_default());
    let _ = output(Command::new("sh").args(["-c", script]).env("PATH", path)).expect("a shell");
    fs::read_to_string(&log).expect("a log").lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn what_changes_an_application_stops_at_the_first_step_that_fails() {
    embedded(Options::default(), async |cluster| {
        for line in ["kubectl patch deployment shop", "kubectl delete pvc data-shop-0"] {
            let block = block_with(line);
            let all = calls(cluster, &block, 1000, "files");
            assert!(all.len() > 2, "{all:?}");
            for failing in 1..=all.len() {
                assert_eq!(calls(cluster, &block, failing, "files"), all[..failing], "{block}");
            }
        }
        // A Deployment that does not use the claim at all is not touched.
        let block = block_with("kubectl patch deployment shop");
        assert_eq!(calls(cluster, &block, 1000, ""), ["get"]);
    })
    .await;
}
