use super::*;
use crate::{settings, text};

fn read(line: &str) -> Result<Command, String> {
    let words = ["volume-snapshotter"].into_iter().chain(line.split_whitespace());
    command(words.map(Into::into)).map_err(|error| error.to_string())
}

fn flags(command: Command) -> Vec<(String, String, String)> {
    let flags = match command {
        Command::List(list) => list.flags,
        Command::Restore(restore) => restore.flags,
        Command::Adopt(adopt) => adopt.flags,
        other => panic!("{other:?}"),
    };
    let text = |flag: Flag| (flag.variable, flag.name, flag.value.to_string_lossy().into_owned());
    flags.into_iter().map(text).collect()
}

fn owned(flags: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    flags.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect()
}

/// The help text of a command, as wide as a terminal usually is; of the program without one.
fn help(command: &str) -> String {
    let mut program = program("volume-snapshotter").max_term_width(80);
    let words = ["volume-snapshotter", command, "--help"].into_iter().filter(|word| !word.is_empty());
    program.try_get_matches_from_mut(words).expect_err("help").to_string()
}

#[test]
fn what_is_declared_is_consistent() {
    program("volume-snapshotter").debug_assert();
}

#[test]
fn without_a_command_it_is_a_run() {
    assert_eq!(read(""), Ok(Command::Run));
    let version = format!("volume-snapshotter {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(read("version"), Ok(Command::Text(version.clone())));
    for line in ["-V", "--version", "--version list"] {
        assert_eq!(read(line), Err(version.clone()), "{line}");
    }
    for line in ["--help", "-h", "help"] {
        assert_eq!(read(line).expect_err(line), read("--help").expect_err("help"), "{line}");
    }
    assert_eq!(read("help restore"), read("restore -h"));
    for line in ["snapshot", "-x", "--frobnicate"] {
        assert!(read(line).is_err_and(|error| error.contains("--help")), "{line}");
    }
}

#[test]
fn flags_stand_in_for_variables() {
    let list = read(
        "list data -nshop --job=weekly --retention last=3 --kubeconfig=/k --context prod --as=eve -o json --all logs",
    )
    .expect("list");
    let Command::List(read_list) = &list else { panic!("{list:?}") };
    let cluster = ClusterFlags {
        kubeconfig: Some("/k".into()),
        context: Some("prod".to_owned()),
        user: Some("eve".to_owned()),
    };
    assert_eq!((&read_list.cluster, read_list.output), (&cluster, Output::Json));
    assert_eq!(read_list.extent, Extent { all_schedules: true, all_namespaces: false, groups: true });
    assert_eq!(
        flags(list),
        owned(&[
            ("SNAPSHOT_PVC_NAMES", "CLAIM", "data,logs"),
            ("SNAPSHOT_NAMESPACE", "--namespace", "shop"),
            ("SNAPSHOT_JOB", "--job", "weekly"),
            ("SNAPSHOT_RETENTION", "--retention", "last=3"),
        ])
    );
    let restore = read("restore --to=a --dry-run --claim data --to b --as eve").expect("restore");
    assert!(matches!(&restore, Command::Restore(restore) if restore.cluster.user.as_deref() == Some("eve")));
    assert_eq!(
        flags(restore),
        owned(&[
            ("RESTORE_CLAIM", "--claim", "data"),
            ("RESTORE_TO", "--to", "b"),
            ("RESTORE_DRY_RUN", "--dry-run", "true"),
        ])
    );
}

#[test]
fn what_is_adopted_is_never_everything_by_default() {
    let line = "adopt data --from snapscheduler.backube/schedule=hourly --snapshot a,b --snapshot c --job=nightly -y";
    let adopt = read(line).expect("adopt");
    let Command::Adopt(read_adopt) = &adopt else { panic!("{adopt:?}") };
    let names = ["a", "b", "c"].map(str::to_owned).into();
    let from = Some("snapscheduler.backube/schedule=hourly".to_owned());
    assert_eq!((&read_adopt.which, read_adopt.yes), (&Which { names, from }, true));
    assert_eq!(
        flags(adopt),
        owned(&[("SNAPSHOT_PVC_NAMES", "CLAIM", "data"), ("SNAPSHOT_JOB", "--job", "nightly")])
    );
    for one in ["data", "-l app=web", "--from a=b", "--snapshot a"] {
        let adopt = read(&format!("adopt {one}")).expect(one);
        assert!(matches!(adopt, Command::Adopt(AdoptCommand { yes: false, .. })), "{one}");
    }
    for wrong in ["adopt", "adopt --yes", "adopt --job a -n shop", "adopt data -l a=b"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_timeline_is_one_more_way_to_show_a_list() {
    let output = |line: &str| match read(line) {
        Ok(Command::List(list)) => list.output,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(output("list data --timeline"), Output::Timeline);
    assert_eq!(output("list data"), Output::Table);
}

#[test]
fn a_simulation_takes_a_policy_and_hourly_runs_for_a_year() {
    let plan = |retention: &str, every: &str, length: &str| Plan {
        rules: retention.parse().expect("rules"),
        every: every.parse().expect("a length of time"),
        length: length.parse().expect("a length of time"),
    };
    for (line, plan, format) in [
        ("simulate --retention daily=7", plan("daily=7", "1h", "1y"), Format::Text),
        (
            "simulate --retention=last=1 --every=1mo --for 10y -ojson",
            plan("last=1", "1mo", "10y"),
            Format::Json,
        ),
    ] {
        assert_eq!(read(line), Ok(Command::Simulate(SimulateCommand { plan, format })), "{line}");
    }
}

#[test]
fn what_is_not_understood_is_refused_with_what_to_do() {
    for (line, problem) in [
        ("list --sellector a", "tip: a similar argument exists: '--selector'"),
        ("liist", "tip: a similar subcommand exists: 'list'"),
        ("restore data", "unexpected argument 'data' found"),
        ("restore --to", "a value is required for '--to <NAME>'"),
        ("restore --dry-run=client --to x", "unexpected value 'client' for '--dry-run'"),
        ("restore --to a --snapshot b --at c", "'--snapshot <SNAPSHOT>' cannot be used with '--at <TIME>'"),
        ("list -o xml", "[possible values: table, wide, json, yaml, name]"),
        ("list -A -n shop", "'--all-namespaces' cannot be used with '--namespace <NAMESPACE>'"),
        ("list data -l app=web", "cannot be used with '--selector <SELECTOR>'"),
        ("list --timeline -o json", "'--timeline' cannot be used with '--output <FORMAT>'"),
        ("list -o timeline", "[possible values: table, wide, json, yaml, name]"),
        ("simulate", "  --retention <RULES>"),
        ("simulate --retention daily=7 data", "unexpected argument 'data' found"),
        ("simulate --retention daily=7 --every 30s", "\"30s\" is too short; accepted are 1m"),
        ("list -x", "unexpected argument '-x' found"),
        // An empty one would mean the file that is there by default.
        ("list --kubeconfig= data", "a value is required for '--kubeconfig <FILE>'"),
        ("completion", "<SHELL>"),
        ("completion tcsh", "[possible values: bash, zsh, fish]"),
    ] {
        let error = read(line).expect_err(line);
        assert!(error.starts_with("error: ") && error.contains(problem), "{line}: {error}");
        assert!(error.ends_with("For more information, try '--help'.\n"), "{line}: {error}");
        assert!(error.lines().count() <= 8, "{line}: {error}");
    }
}

#[test]
fn as_a_plugin_it_calls_itself_as_kubectl_does() {
    let read = |line: &str| {
        let words = ["/usr/bin/kubectl-volume_snapshotter"].into_iter().chain(line.split_whitespace());
        command(words.map(Into::into)).expect_err(line).to_string()
    };
    for line in [
        "--help",
        "list --help",
        "restore --help",
        "adopt --help",
        "simulate --help",
        "list --sellector a",
        "restore a",
    ] {
        let said = read(line);
        assert!(said.contains("Usage: kubectl volume-snapshotter"), "{line}: {said}");
        // Labels and defaults have that name as well, and no blank before it at the beginning of a line.
        let other = |line: &&str| line.trim_start().starts_with("volume-snapshotter ");
        assert_eq!(said.lines().find(other), None, "{line}");
    }
    assert!(read("list --help").contains("\n  kubectl volume-snapshotter list data -n shop -o wide\n"));
}

#[test]
fn every_variable_of_a_restore_has_a_flag_but_those_that_a_job_sets() {
    let program = program("volume-snapshotter");
    let restore = program.find_subcommand("restore").expect("restore");
    let ids: Vec<String> = restore
        .get_arguments()
        .map(|flag| format!("RESTORE_{}", flag.get_id().as_str().to_uppercase()))
        .collect();
    let without: Vec<&str> =
        settings::RESTORE_NAMES.into_iter().filter(|name| !ids.iter().any(|id| id == name)).collect();
    assert_eq!(
        without,
        ["RESTORE_RUN_ID", "RESTORE_RUN_UID", "RESTORE_TERMINATION_LOG", "RESTORE_LOG_FORMAT", "RUST_LOG"]
    );
}

#[test]
fn the_help_texts_name_every_setting_and_fit_80_columns() {
    let (of_program, of_list, of_restore) = (help(""), help("list"), help("restore"));
    for name in settings::NAMES {
        assert!(of_program.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name}");
    }
    for name in settings::RESTORE_NAMES {
        assert!(of_restore.contains(name), "{name}");
    }
    let of_list_flags = ["PVC_NAMES", "PVC_SELECTOR", "NAMESPACE", "JOB", "RETENTION"];
    for name in of_list_flags.map(|name| format!("SNAPSHOT_{name}]")) {
        assert!(of_list.contains(&name), "{name}");
    }
    for text in [of_program, of_list, of_restore, help("adopt"), help("simulate"), help("completion")] {
        for line in text.lines() {
            assert!(text::width(line) <= 80, "{line}");
        }
    }
}

#[test]
fn the_examples_of_the_help_texts_are_understood() {
    let mut seen = 0;
    for text in ["list", "restore", "adopt", "simulate"].map(help) {
        for line in text.lines() {
            let Some(example) = line.strip_prefix("  volume-snapshotter ") else { continue };
            let example = example.split(" | ").next().unwrap_or_default();
            let example = example.replace("\"2026-11-20 08:55\"", "2026-11-20T08:55");
            let command = read(&example).unwrap_or_else(|error| panic!("{example}: {error}"));
            if let Command::Restore(restore) = command {
                RestoreSettings::parse([], restore.flags)
                    .unwrap_or_else(|(problems, _)| panic!("{example}: {problems}"));
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 17);
}
