//! What a release consists of beside the image: the scripts of `.ci/release`, run as the workflow
//! runs them, on binaries that are none.
//!
//! They need bash and GNU tar. Where either is missing, the tests that need it say so and pass.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

const PLATFORMS: [&str; 4] = ["darwin-amd64", "darwin-arm64", "linux-amd64", "linux-arm64"];
const SOURCE: &str = "https://github.com/OWNER/volume-snapshotter";

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A temporary directory of this test.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("release").join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory");
    directory
}

/// Whether there is what the scripts need.
fn tools() -> bool {
    let said = |program: &str| Command::new(program).arg("--version").output();
    let gnu = said("tar").is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("GNU tar"));
    let found = said("bash").is_ok() && said("awk").is_ok() && gnu;
    if !found {
        // Not with eprintln!, which the test harness swallows when a test passes.
        let _ =
            std::io::stderr().write_all(b"SKIPPED: the release scripts: they need bash, awk and GNU tar\n");
    }
    found
}

/// Runs a script of a copy of the repository, or of the repository itself.
fn script(top: &Path, name: &str, arguments: &[&str]) -> Output {
    Command::new(top.join(".ci/release").join(name))
        .args(arguments)
        .env("SOURCE_DATE_EPOCH", "1000000000")
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn said(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A copy of what the scripts read, with a changelog and a version of the test's own.
fn repository(name: &str, version: &str, changelog: &str) -> PathBuf {
    let directory = directory(name);
    fs::create_dir_all(directory.join(".ci/release")).expect("a directory");
    for script in fs::read_dir(top().join(".ci/release")).expect("the scripts").flatten() {
        fs::copy(script.path(), directory.join(".ci/release").join(script.file_name())).expect("a copy");
    }
    fs::write(directory.join("Cargo.toml"), format!("[workspace.package]\nversion = \"{version}\"\n"))
        .expect("a file");
    fs::write(directory.join("CHANGELOG.md"), changelog).expect("a file");
    directory
}

const CHANGELOG: &str = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-12-24\n\n### Added\n\n- One.\n\n- Two.\n\n\
                         ## [0.1.0] - 2026-11-30\n\n- The first.\n\n## [0.0.9] - 2026-11-01\n\n\
                         [0.2.0]: https://example.org\n";

#[test]
fn the_notes_of_a_release_are_its_section_of_the_changelog() {
    if !tools() {
        return;
    }
    let repository = repository("notes", "0.2.0", CHANGELOG);
    let notes = |version: &str| script(&repository, "notes", &[version]);
    assert_eq!(said(notes("0.2.0")), "### Added\n\n- One.\n\n- Two.\n");
    assert_eq!(said(notes("0.1.0")), "- The first.\n");
    // Empty, not there, not released yet, and what a dot would match if it meant anything.
    for version in ["0.0.9", "0.3.0", "Unreleased", "0.1"] {
        let output = notes(version);
        assert!(!output.status.success(), "{version}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(&format!("nothing of {version}")), "{error}");
    }
    let other = CHANGELOG.replace("[0.1.0]", "[0x1y0]");
    fs::write(repository.join("CHANGELOG.md"), other).expect("a file");
    assert!(!notes("0.1.0").status.success());
}

#[test]
fn a_tag_is_released_only_if_the_version_and_the_changelog_say_the_same() {
    if !tools() {
        return;
    }
    let repository = repository("check", "0.2.0", CHANGELOG);
    let check = |tag: &str| script(&repository, "check", &[tag]);
    assert_eq!(said(check("v0.2.0")), "0.2.0\n");
    for tag in ["0.2.0", "v0.2.0-rc.1", "v0.1.0", "v"] {
        let output = check(tag);
        assert!(!output.status.success(), "{tag}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("the version 0.2.0"), "{error}");
    }
    fs::write(repository.join("CHANGELOG.md"), "## [Unreleased]\n\n- More.\n").expect("a file");
    assert!(!check("v0.2.0").status.success());
    // As it is read from the real Cargo.toml.
    let error = script(top(), "check", &["v"]);
    let error = String::from_utf8_lossy(&error.stderr).into_owned();
    assert!(error.contains(&format!("the version {}", env!("CARGO_PKG_VERSION"))), "{error}");
}

/// Binaries that are none, as the workflow downloads them: without a mode.
fn binaries(directory: &Path) -> PathBuf {
    let binaries = directory.join("binaries");
    for platform in PLATFORMS {
        fs::create_dir_all(binaries.join(platform)).expect("a directory");
        fs::write(binaries.join(platform).join("volume-snapshotter"), format!("for {platform}\n"))
            .expect("a file");
    }
    binaries
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the tests is UTF-8")
}

#[test]
fn an_archive_has_the_binary_and_the_licence_and_is_the_same_each_time() {
    if !tools() {
        return;
    }
    let directory = directory("archives");
    let (binaries, out) = (binaries(&directory), directory.join("dist"));
    let again = directory.join("again");
    for out in [&out, &again] {
        said(script(top(), "archives", &["0.2.0", text(&binaries), text(out)]));
    }
    let checksums = fs::read_to_string(out.join("checksums.txt")).expect("checksums");
    assert_eq!(fs::read_to_string(again.join("checksums.txt")).expect("checksums"), checksums);
    let named: BTreeSet<_> = checksums.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let archives: Vec<_> =
        PLATFORMS.iter().map(|platform| format!("volume-snapshotter-0.2.0-{platform}.tar.gz")).collect();
    assert_eq!(named, archives.iter().map(String::as_str).collect());
    let checked = Command::new("sha256sum").args(["--check", "checksums.txt"]).current_dir(&out).output();
    said(checked.expect("sha256sum"));
    for (archive, platform) in archives.iter().zip(PLATFORMS) {
        let list = Command::new("tar")
            .args(["-tvzf", archive])
            .env("TZ", "UTC")
            .current_dir(&out)
            .output()
            .expect("tar");
        let list = said(list);
        let entries: Vec<Vec<_>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
        let found: Vec<_> =
            entries.iter().map(|entry| (entry[0], entry[1], entry[entry.len() - 1])).collect();
        assert_eq!(
            found,
            [
                ("-rw-r--r--", "0/0", "LICENSE"),
                ("-rwxr-xr-x", "0/0", "volume-snapshotter"),
                ("-rw-r--r--", "0/0", "volume-snapshotter.1"),
                ("-rw-r--r--", "0/0", "volume-snapshotter-adopt.1"),
                ("-rw-r--r--", "0/0", "volume-snapshotter-list.1"),
                ("-rw-r--r--", "0/0", "volume-snapshotter-read.1"),
                ("-rw-r--r--", "0/0", "volume-snapshotter-restore.1"),
                ("-rw-r--r--", "0/0", "volume-snapshotter-simulate.1"),
                ("-rw-r--r--", "0/0", "volume-snapshotter-verify.1"),
            ],
            "{archive}"
        );
        let binary =
            Command::new("tar").args(["-xOzf", archive, "volume-snapshotter"]).current_dir(&out).output();
        assert_eq!(said(binary.expect("tar")), format!("for {platform}\n"));
    }
}

#[test]
fn a_release_lacks_no_platform() {
    if !tools() {
        return;
    }
    let directory = directory("lacking");
    let (binaries, out) = (binaries(&directory), directory.join("dist"));
    fs::remove_file(binaries.join("linux-arm64/volume-snapshotter")).expect("the file is removed");
    let output = script(top(), "archives", &["0.2.0", text(&binaries), text(&out)]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("linux-arm64/volume-snapshotter is missing"));
    // The workflow builds those that are packed.
    let workflow = fs::read_to_string(top().join(".github/workflows/release.yml")).expect("the workflow");
    let workflow: Value = serde_saphyr::from_str(&workflow).expect("YAML");
    let built = workflow["jobs"]["binary"]["strategy"]["matrix"]["include"].as_array().expect("a matrix");
    let built: BTreeSet<_> = built.iter().filter_map(|one| one["platform"].as_str()).collect();
    assert_eq!(built, BTreeSet::from(PLATFORMS));
}

#[test]
fn the_krew_manifest_names_the_archives_with_their_checksums() {
    if !tools() {
        return;
    }
    let directory = directory("krew");
    let (binaries, out) = (binaries(&directory), directory.join("dist"));
    said(script(top(), "archives", &["0.2.0", text(&binaries), text(&out)]));
    let checksums = out.join("checksums.txt");
    let manifest = said(script(top(), "krew", &["0.2.0", SOURCE, text(&checksums)]));
    let manifest: Value = serde_saphyr::from_str(&manifest).expect("YAML");
    assert_eq!(manifest["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!(manifest["kind"], "Plugin");
    assert_eq!(manifest["metadata"]["name"], "volume-snapshotter");
    let spec = &manifest["spec"];
    assert_eq!((&spec["version"], &spec["homepage"]), (&json!("v0.2.0"), &json!(SOURCE)));
    // krew shows it in one line of a table.
    let short = spec["shortDescription"].as_str().expect("a short description");
    assert!(short.len() <= 50, "{short}");
    let checksums = fs::read_to_string(checksums).expect("checksums");
    let sums: BTreeMap<_, _> = checksums
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, name)| (name.to_owned(), sum.to_owned()))
        .collect();
    let mut platforms = BTreeSet::new();
    for platform in spec["platforms"].as_array().expect("platforms") {
        let labels = &platform["selector"]["matchLabels"];
        let name = format!(
            "{}-{}",
            labels["os"].as_str().unwrap_or_default(),
            labels["arch"].as_str().unwrap_or_default()
        );
        let archive = format!("volume-snapshotter-0.2.0-{name}.tar.gz");
        assert_eq!(platform["uri"], format!("{SOURCE}/releases/download/v0.2.0/{archive}"));
        assert_eq!(platform["sha256"], sums[&archive]);
        // kubectl looks for a hyphen of a plugin's name as an underscore.
        assert_eq!(platform["bin"], "kubectl-volume_snapshotter");
        assert_eq!(
            platform["files"],
            json!([
                {"from": "volume-snapshotter", "to": "kubectl-volume_snapshotter"},
                {"from": "LICENSE", "to": "."},
            ])
        );
        platforms.insert(name);
    }
    assert_eq!(platforms, PLATFORMS.iter().map(|&platform| platform.to_owned()).collect());

    fs::write(out.join("checksums.txt"), "").expect("a file");
    let output = script(top(), "krew", &["0.2.0", SOURCE, text(&out.join("checksums.txt"))]);
    assert!(!output.status.success(), "a manifest without a checksum");
}
