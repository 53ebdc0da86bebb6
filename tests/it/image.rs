//! Checks the container image and the release workflows as far as possible without a container engine: the
//! Dockerfile's sources exist, its steps work, the versions agree, and a static binary, if one was built,
//! needs nothing else in the image. `crate::release` checks the rest of a release.
//!
//! `just static` builds one; without it the tests of the binary say so and pass.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(file: &str) -> String {
    fs::read_to_string(top().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn skip(what: &str) {
    // Not with eprintln!, which the test harness swallows when a test passes.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {what}\n").as_bytes());
}

/// A temporary directory of this test.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image").join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory");
    directory
}

// --- The Dockerfile ------------------------------------------------------------------------------

/// One stage: its name, what it is made from, and its instructions.
#[derive(Debug, Default)]
struct Stage {
    name: String,
    from: String,
    instructions: Vec<(String, String)>,
}

/// The arguments before the first stage, and the stages.
fn dockerfile() -> (Vec<(String, String)>, Vec<Stage>) {
    let text = text("Dockerfile");
    // Comment lines first: they may stand between the lines of one instruction.
    let lines: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let (mut before, mut stages) = (Vec::new(), Vec::<Stage>::new());
    for line in joined.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (instruction, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        let rest = rest.trim();
        match (instruction, stages.last_mut()) {
            ("FROM", _) => {
                let mut words = rest.split_whitespace();
                let from = words.next().expect("FROM names an image").to_owned();
                assert!(matches!(words.next(), None | Some("AS")), "{line:?}");
                let name = words.next().unwrap_or_default().to_owned();
                stages.push(Stage { name, from, instructions: Vec::new() });
            }
            (_, Some(stage)) => stage.instructions.push((instruction.to_owned(), rest.to_owned())),
            (_, None) => before.push((instruction.to_owned(), rest.to_owned())),
        }
    }
    (before, stages)
}

impl Stage {
    fn all(&self, instruction: &str) -> Vec<&str> {
        self.instructions
            .iter()
            .filter(|(name, _)| name == instruction)
            .map(|(_, rest)| rest.as_str())
            .collect()
    }

    /// What is copied: the stage that it comes from, if it is one, the sources and the destination.
    fn copies(&self) -> Vec<(Option<&str>, Vec<&str>, &str)> {
        self.all("COPY")
            .into_iter()
            .map(|rest| {
                let (options, mut paths): (Vec<_>, Vec<_>) =
                    rest.split_whitespace().partition(|word| word.starts_with("--"));
                let from = options.iter().find_map(|option| option.strip_prefix("--from="));
                let destination = paths.pop().expect("COPY has a destination");
                (from, paths, destination)
            })
            .collect()
    }
}

/// The value of `NAME=value` or `NAME="value"`.
fn argument<'a>(instructions: &'a [(String, String)], name: &str) -> &'a str {
    instructions
        .iter()
        .filter(|(instruction, _)| instruction == "ARG")
        .find_map(|(_, rest)| rest.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("ARG {name} has a default"))
        .trim_matches('"')
}

fn version_of(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().unwrap_or_else(|_| panic!("{text} is a version"))).collect()
}

/// What stands in quotes after `key = ` at the beginning of a line of Cargo.toml.
fn cargo_toml(key: &str) -> String {
    text("Cargo.toml")
        .lines()
        .find_map(|line| {
            line.strip_prefix(key)?
                .trim_start()
                .strip_prefix('=')?
                .trim()
                .strip_prefix('"')?
                .strip_suffix('"')
        })
        .unwrap_or_else(|| panic!("{key} in Cargo.toml"))
        .to_owned()
}

#[test]
fn the_final_image_starts_from_nothing_and_names_only_stages_and_paths_that_exist() {
    let (_, stages) = dockerfile();
    let [build, last] = stages.as_slice() else { panic!("two stages: {stages:?}") };
    assert_eq!(last.from, "scratch");
    assert!(last.all("RUN").is_empty(), "there is nothing to run with in an empty image");

    let ignore = text(".dockerignore");
    let let_in: Vec<_> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignore.lines().any(|line| line == "*"), "everything else stays out");
    for (from, sources, _) in build.copies().into_iter().chain(last.copies()) {
        for source in sources {
            if let Some(from) = from {
                assert_eq!(from, build.name, "{source} comes from a stage that is there");
                assert!(source.starts_with('/'), "{source}: a path in a stage is absolute");
            } else {
                assert!(top().join(source).exists(), "{source} does not exist");
                let allowed =
                    let_in.iter().any(|path| source == *path || source.starts_with(&format!("{path}/")));
                assert!(allowed, "{source} is kept out by .dockerignore");
            }
        }
    }
    for path in let_in {
        assert!(top().join(path).exists(), ".dockerignore lets {path} in, which does not exist");
    }
}

#[test]
fn the_final_image_holds_the_binary_the_certificates_and_the_licence_and_nothing_else() {
    let (_, stages) = dockerfile();
    let last = stages.last().expect("there is a stage");
    let sources: BTreeSet<_> = last.copies().into_iter().flat_map(|(_, sources, _)| sources).collect();
    let binary = "/build/target/release/volume-snapshotter";
    assert_eq!(sources, BTreeSet::from(["LICENSE", "/etc/ssl/certs/ca-certificates.crt", binary]));
    assert!(last.all("ADD").is_empty());
    assert_eq!(last.all("ENTRYPOINT"), [r#"["/volume-snapshotter"]"#]);
    // The working directory of the stage that the binary comes from, with cargo's path to it.
    assert_eq!(stages[0].all("WORKDIR"), ["/build"]);
}

#[test]
fn the_user_is_a_number_that_is_not_root_and_the_one_of_the_manifests() {
    let (_, stages) = dockerfile();
    let users = stages.last().expect("there is a stage").all("USER");
    let [user] = users.as_slice() else { panic!("one USER: {users:?}") };
    let (user, group) = user.split_once(':').expect("user and group");
    let user: u32 = user.parse().expect("a number");
    let group: u32 = group.parse().expect("a number");
    assert!(user > 0 && group > 0);
    let cron_job = text("kustomize/base/cronjob.yaml");
    assert!(cron_job.contains(&format!("runAsUser: {user}\n")), "{user}");
    assert!(cron_job.contains(&format!("runAsGroup: {group}\n")), "{group}");
}

#[test]
fn the_labels_are_those_of_the_oci_image_specification() {
    let (_, stages) = dockerfile();
    let last = stages.last().expect("there is a stage");
    let labels = last.all("LABEL").join(" ");
    for key in ["title", "description", "licenses", "version", "revision"] {
        assert!(labels.contains(&format!("org.opencontainers.image.{key}=\"")), "{key}");
    }
    assert!(labels.contains(&format!("licenses=\"{}\"", cargo_toml("license"))));
    assert!(labels.contains(&format!("description=\"{}\"", cargo_toml("description"))));
    // What a label takes from an argument has to be one of this stage, and must not be empty.
    for name in labels.split("${").skip(1).filter_map(|rest| rest.split('}').next()) {
        assert!(!argument(&last.instructions, name).is_empty(), "{name}");
    }
    // What only the builder knows is not a label at all where nobody says it.
    for key in ["source", "created"] {
        let label = format!("org.opencontainers.image.{key}=");
        assert!(!labels.contains(&label), "{key}");
        assert!(text(".github/workflows/release.yml").contains(&format!("--label \"{label}")), "{key}");
    }
}

#[test]
fn every_place_that_names_the_version_names_the_one_of_cargo_toml() {
    let version = cargo_toml("version");
    let (_, stages) = dockerfile();
    assert_eq!(argument(&stages.last().expect("there is a stage").instructions, "VERSION"), version);
    let mut found = 0;
    let mut files =
        vec!["justfile".to_owned(), "README.md".to_owned(), "deploy/overlays/kind/run".to_owned()];
    files.push("kustomize/base/cronjob.yaml".to_owned());
    files.push("kustomize/components/restore/cronjob.yaml".to_owned());
    for file in &files {
        let text = text(file);
        for rest in text.split("volume-snapshotter:").skip(1) {
            let tag: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            if !tag.is_empty() {
                assert_eq!(tag.trim_end_matches('.'), version, "{file}");
                found += 1;
            }
        }
    }
    assert!(found >= files.len(), "{found}");
    for overlay in fs::read_dir(top().join("deploy/overlays")).expect("overlays") {
        let file = overlay.expect("an overlay").path().join("kustomization.yaml");
        let text = fs::read_to_string(&file).expect("an overlay has a kustomization.yaml");
        assert!(text.contains(&format!("newTag: \"{version}\"\n")), "{}", file.display());
    }
    // A release is described before it is made.
    let changelog = text("CHANGELOG.md");
    assert!(changelog.contains("## [Unreleased]"));
}

/// The channel that rust-toolchain.toml names.
fn channel() -> String {
    let text = text("rust-toolchain.toml");
    let line = text.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'));
    line.expect("a channel").to_owned()
}

#[test]
fn the_image_is_built_with_the_compiler_of_the_project_whose_musl_resolves_names() {
    let (_, stages) = dockerfile();
    let channel = channel();
    let version = version_of(&channel);
    assert_eq!(version.len(), 3, "{channel}: one version and not a range of them");
    assert!(version >= version_of(&cargo_toml("rust-version")), "{channel}");
    // From there on Rust links musl 1.2.5, which asks again over TCP when an answer is cut off.
    assert!(version >= vec![1, 93], "{channel}");
    let (image, digest) = stages[0].from.split_once("@sha256:").expect("the base image has a digest");
    assert!(image.starts_with(&format!("rust:{channel}-alpine")), "{image}: not {channel}");
    assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");
}

/// `cargo release-binary`, an alias: what is measured, tried and released is one binary.
#[test]
fn every_release_binary_is_built_by_one_command() {
    let alias = text(".cargo/config.toml");
    let alias = alias.lines().find_map(|line| line.strip_prefix("release-binary = \"")?.strip_suffix('"'));
    assert_eq!(alias, Some("build --locked --release --package volume-snapshotter --bin volume-snapshotter"));
    let (_, stages) = dockerfile();
    let runs = stages[0].all("RUN");
    let builds: Vec<_> = runs.iter().filter(|run| run.contains("cargo ")).collect();
    assert_eq!(builds.len(), 2, "{builds:?}");
    for run in builds {
        assert!(run.ends_with("&& cargo release-binary"), "{run}");
    }
    let mut others = vec![(PathBuf::from("justfile"), text("justfile")), (".ci/run".into(), text(".ci/run"))];
    others.extend(workflows());
    for (file, text) in others {
        assert!(text.contains("cargo release-binary"), "{}", file.display());
        for line in text.lines().filter(|line| line.contains("cargo build")) {
            assert!(!line.contains("--release"), "{}: {line}", file.display());
        }
    }
}

/// The step that builds the dependencies alone puts an empty file in the place of every target.
/// One that is missing shows only when the image is built, so its lines are tried here.
#[test]
fn the_empty_files_that_stand_in_for_the_sources_satisfy_cargo() {
    let (_, stages) = dockerfile();
    let build = &stages[0];
    let directory = directory("dependencies");
    // What is copied before the sources are.
    for (from, sources, destination) in build.copies() {
        if from.is_some() || sources.contains(&"src") || sources.contains(&"README.md") {
            continue;
        }
        for source in sources {
            let to = directory.join(destination);
            fs::create_dir_all(&to).expect("a directory");
            let name = Path::new(source).file_name().expect("a file is copied");
            fs::copy(top().join(source), to.join(name)).expect("a file can be copied");
        }
    }
    let runs = build.all("RUN");
    let run = runs.iter().find(|run| run.contains("touch")).expect("a step that makes empty files");
    let (makes, builds) = run.split_once("&& cargo ").expect("it builds afterwards");
    assert_eq!(builds, "release-binary");
    let made = Command::new("sh").args(["-euc", makes]).current_dir(&directory).output().expect("a shell");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let targets = |directory: &Path| {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
            .current_dir(directory)
            .output()
            .expect("cargo can be started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let root = metadata["workspace_root"].as_str().expect("a path").to_owned();
        let mut paths = BTreeSet::new();
        for package in metadata["packages"].as_array().expect("packages") {
            for target in package["targets"].as_array().expect("targets") {
                let kind = target["kind"][0].as_str().expect("a kind");
                // The tests of the other packages cargo finds by itself, or not.
                if kind != "test" || package["name"] == "volume-snapshotter" {
                    let path = target["src_path"].as_str().expect("a path");
                    paths.insert(path.strip_prefix(&root).expect("a path in the workspace").to_owned());
                }
            }
        }
        paths
    };
    assert_eq!(targets(&directory), targets(top()));
}

// --- The binary ----------------------------------------------------------------------------------

/// Static binaries that were built here: that of this very test run, if it is one, and those of
/// `just static`.
fn static_binaries() -> Vec<PathBuf> {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // target/tmp, or target/TRIPLE/tmp.
    let targets = [tmp.parent(), tmp.parent().and_then(Path::parent)];
    let mut found = BTreeSet::new();
    for target in targets.into_iter().flatten().chain([top().join("target").as_path()]) {
        for entry in fs::read_dir(target).into_iter().flatten().flatten() {
            let binary = entry.path().join("release/volume-snapshotter");
            if entry.file_name().to_string_lossy().ends_with("-linux-musl") && binary.is_file() {
                found.insert(binary);
            }
        }
    }
    if found.is_empty() {
        skip("there is no static binary to look at; just static builds one");
    }
    found.into_iter().collect()
}

/// The program headers' types: 2 is PT_DYNAMIC, 3 is PT_INTERP.
fn program_headers(elf: &[u8]) -> Vec<(u32, usize, usize)> {
    assert_eq!(elf.get(..6), Some(b"\x7fELF\x02\x01".as_slice()), "a little-endian 64-bit binary");
    let number = |at: usize, bytes: usize| {
        elf[at..at + bytes].iter().rev().fold(0_usize, |value, byte| value << 8 | usize::from(*byte))
    };
    let (offset, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count)
        .map(|index| offset + index * size)
        .map(|at| {
            let kind = u32::try_from(number(at, 4)).expect("four bytes");
            (kind, number(at + 8, 8), number(at + 32, 8))
        })
        .collect()
}

/// How many libraries a binary asks its loader for (`DT_NEEDED`, which is 1).
fn needed(elf: &[u8]) -> usize {
    let dynamic = program_headers(elf).into_iter().filter(|(kind, ..)| *kind == 2);
    dynamic
        .flat_map(|(_, offset, size)| elf[offset..offset + size].chunks_exact(16))
        .map(|entry| u64::from_le_bytes(entry[..8].try_into().expect("eight bytes")))
        .take_while(|tag| *tag != 0)
        .filter(|tag| *tag == 1)
        .count()
}

#[test]
fn a_static_binary_asks_for_no_loader_and_no_library() {
    for binary in static_binaries() {
        let elf = fs::read(&binary).expect("the binary can be read");
        let interpreters = program_headers(&elf).into_iter().filter(|(kind, ..)| *kind == 3).count();
        assert_eq!((interpreters, needed(&elf)), (0, 0), "{}", binary.display());
    }
}

#[test]
fn a_binary_that_needs_libraries_would_be_found() {
    // The tests themselves are such a binary, unless they were built for musl.
    let own = fs::read(env::current_exe().expect("this binary")).expect("it can be read");
    if cfg!(all(target_os = "linux", target_env = "gnu")) {
        assert!(program_headers(&own).iter().any(|(kind, ..)| *kind == 3));
        assert!(needed(&own) > 0);
    }
}

/// Runs the binary as in the container: an empty root filesystem that is read-only, and no user database.
#[test]
fn a_static_binary_runs_in_an_empty_root_that_cannot_be_written_to() {
    for binary in static_binaries() {
        let machine =
            Command::new("uname").arg("-m").output().map(|output| output.stdout).unwrap_or_default();
        let machine = String::from_utf8_lossy(&machine).trim().to_owned();
        if !binary.to_string_lossy().contains(&format!("/{machine}-")) {
            skip(&format!("{} is for another machine", binary.display()));
            continue;
        }
        let root = directory("root");
        fs::copy(&binary, root.join("volume-snapshotter")).expect("the binary can be copied");
        let enter = r#"
            mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && cd "$1" || exit 99
            shift
            exec chroot . /volume-snapshotter "$@"
        "#;
        let run = |arguments: &[&str]| {
            let output = Command::new("unshare")
                .args(["--user", "--map-root-user", "--mount", "sh", "-c", enter, "sh"])
                .arg(&root)
                .args(arguments)
                .env_clear()
                .env("PATH", env::var_os("PATH").unwrap_or_default())
                .stdin(Stdio::null())
                .output();
            match output {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => panic!("unshare: {error}"),
                // The system allows no such thing: unshare's own failure, or that of the mounts.
                Ok(output) if matches!(output.status.code(), Some(99)) => None,
                Ok(output) if String::from_utf8_lossy(&output.stderr).starts_with("unshare:") => None,
                Ok(output) => Some(output),
            }
        };
        let Some(output) = run(&["--version"]) else {
            skip("mount namespaces are not allowed here");
            return;
        };
        assert!(output.status.success(), "{output:?}");
        let version = format!("volume-snapshotter {}\n", cargo_toml("version"));
        assert_eq!(String::from_utf8_lossy(&output.stdout), version);
        // It gets as far as its settings, which are missing.
        let output = run(&[]).expect("it has just worked");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("SNAPSHOT_PVC_NAMES"), "{output:?}");
    }
}

// --- The workflows -------------------------------------------------------------------------------

fn workflows() -> Vec<(PathBuf, String)> {
    let files: Vec<_> = fs::read_dir(top().join(".github/workflows"))
        .expect("there are workflows")
        .map(|entry| entry.expect("a workflow").path())
        .map(|path| (path.clone(), fs::read_to_string(&path).expect("a workflow is UTF-8")))
        .collect();
    assert!(!files.is_empty());
    files
}

#[test]
fn workflows_use_actions_by_digest_and_say_which_version_it_is() {
    for (path, text) in workflows() {
        for line in text.lines() {
            let Some((_, action)) = line.split_once("uses: ") else { continue };
            // A workflow of this repository, at the same commit.
            if action.starts_with("./.github/workflows/") {
                let file = action.split_whitespace().next().unwrap_or_default();
                assert!(top().join(file).exists(), "{}: {line}", path.display());
                continue;
            }
            let (name, comment) =
                action.split_once(" # v").unwrap_or_else(|| panic!("{}: {line}", path.display()));
            let digest = name.rsplit_once('@').map(|(_, digest)| digest).unwrap_or_default();
            let hex = digest.len() == 40 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(hex, "{}: {line}", path.display());
            assert!(comment.starts_with(|c: char| c.is_ascii_digit()), "{}: {line}", path.display());
        }
    }
}

#[test]
fn the_scripts_in_workflows_are_scripts_and_no_workflow_has_more_rights_than_it_names() {
    for (path, text) in workflows() {
        let workflow: Value =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(workflow["permissions"], serde_json::json!({}), "{}", path.display());
        for (name, job) in workflow["jobs"].as_object().expect("a workflow has jobs") {
            assert!(job["permissions"].is_object(), "{}: {name}", path.display());
            if job["uses"].is_string() {
                // Another workflow, whose own jobs have a limit each.
                assert!(job["secrets"].is_null(), "{}: {name}: it needs none", path.display());
                continue;
            }
            assert!(job["timeout-minutes"].is_number(), "{}: {name}", path.display());
            for step in job["steps"].as_array().expect("a job has steps") {
                let Some(script) = step["run"].as_str() else { continue };
                // What a pull request says (its title, its branch) must not become code.
                assert!(!script.contains("${{"), "{}: {name}: {script}", path.display());
                let read = Command::new("bash").args(["-n", "-c", script]).output();
                match read {
                    Err(error) if error.kind() == ErrorKind::NotFound => skip("bash is not installed"),
                    Err(error) => panic!("bash: {error}"),
                    Ok(read) => assert!(
                        read.status.success(),
                        "{}: {name}: {}",
                        path.display(),
                        String::from_utf8_lossy(&read.stderr)
                    ),
                }
            }
        }
    }
}

#[test]
fn a_release_passes_all_that_a_change_has_to_pass_and_its_secrets_are_those_of_an_environment() {
    let text = text(".github/workflows/release.yml");
    let workflow: Value = serde_saphyr::from_str(&text).expect("YAML");
    assert_eq!(workflow["concurrency"]["cancel-in-progress"], false);
    let jobs = workflow["jobs"].as_object().expect("a workflow has jobs");
    assert_eq!(jobs["ci"]["uses"], "./.github/workflows/ci.yml");
    let needs = |name: &str| match &jobs[name]["needs"] {
        Value::String(one) => vec![one.clone()],
        Value::Array(more) => more.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    for name in jobs.keys().filter(|name| !["version", "ci"].contains(&name.as_str())) {
        let (mut before, mut left) = (BTreeSet::new(), vec![name.clone()]);
        while let Some(job) = left.pop() {
            left.extend(needs(&job).into_iter().filter(|job| before.insert(job.clone())));
        }
        assert!(before.contains("ci"), "{name} does not wait for what CI runs");
        let says = serde_json::to_string(&jobs[name]).expect("JSON");
        let writes = jobs[name]["permissions"].as_object().expect("permissions").values();
        if says.contains("secrets.") || writes.into_iter().any(|permission| permission == "write") {
            assert_eq!(jobs[name]["environment"], "release", "{name}");
        }
        // What was compiled for another commit, or by a pull request, is no part of a release.
        assert!(!says.contains("cache@"), "{name}");
    }
}
