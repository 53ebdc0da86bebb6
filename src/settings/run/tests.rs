//! Tables of settings and what becomes of them.

use proptest::prelude::*;

use super::*;

fn parse(pairs: &[(&str, &str)]) -> Result<Settings, Problems> {
    Settings::parse(pairs.iter().map(|(name, value)| (name.into(), value.into())))
}

fn with(name: &str, value: &str) -> Result<Settings, Problems> {
    match name {
        "SNAPSHOT_PVC_NAMES" | "SNAPSHOT_PVC_SELECTOR" => parse(&[(name, value)]),
        _ => parse(&[("SNAPSHOT_PVC_NAMES", "data"), (name, value)]),
    }
}

#[test]
fn one_claim_is_all_that_must_be_said() {
    let settings =
        parse(&[("SNAPSHOT_PVC_NAMES", "data"), ("PATH", "/bin"), ("HOME", "")]).expect("settings");
    assert_eq!(settings.claims, ClaimChoice::Names(vec!["data".into()]));
    assert_eq!(settings.namespace, None);
    assert_eq!(settings.class, None);
    assert_eq!(settings.name_prefix, "volume-snapshot");
    assert_eq!(settings.schedule, "volume-snapshotter");
    assert_eq!(settings.longest_wait(), Duration::from_secs(90));
    assert_eq!(settings.bound(), Duration::from_secs(390));
    assert_eq!(settings.lifetime(), Duration::from_secs(400));
    assert_eq!(settings.retention.to_string(), "last=1");
    assert_eq!(settings.concurrency, 8);
    assert!(!settings.dry_run && !settings.hold);
    assert_eq!(settings.shard, Shard::WHOLE);
    assert_eq!((settings.run_id, settings.run_uid), (None, None));
    assert!(!settings.is_retention_given && !settings.prune_unread_claims);
    assert_eq!(settings.termination_log, PathBuf::from("/dev/termination-log"));
    assert_eq!(settings.log_format, None);
    assert_eq!((settings.ping_url.as_ref(), settings.notify_ca_file.as_ref()), (None, None));
    assert_eq!((settings.ping_failures, settings.events), (PingFailures::Final, EventChoice::Warnings));
}

#[test]
fn values_are_read_as_users_write_them() {
    let claims = |value| with("SNAPSHOT_PVC_NAMES", value).expect("settings").claims;
    assert_eq!(claims(" data, logs ,data"), ClaimChoice::Names(vec!["data".into(), "logs".into()]));
    let selector = with("SNAPSHOT_PVC_SELECTOR", "app in (web, db),!scratch").expect("settings");
    assert_eq!(selector.claims, ClaimChoice::Selector("app in (web, db),!scratch".into()));
    for (value, millis) in [
        ("30", 30_000),
        ("30s", 30_000),
        ("5m", 300_000),
        ("1m30s", 90_000),
        ("1m 30s", 90_000),
        ("250ms", 250),
    ] {
        let settings = with("SNAPSHOT_READY_INTERVAL", value).expect(value);
        assert_eq!(settings.ready_interval, Duration::from_millis(millis), "{value}");
    }
    assert!(with("SNAPSHOT_DRY_RUN", "true").expect("settings").dry_run);
    assert!(with("SNAPSHOT_HOLD", "true").expect("settings").hold);
    let labels = with("SNAPSHOT_LABELS", "release=1.2.3, example.org/team = shop").expect("settings").labels;
    let labels: Vec<_> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("example.org/team", "shop"), ("release", "1.2.3")]);
    assert!(with("SNAPSHOT_HOOKS", "true").expect("settings").hooks);
    let group = with("SNAPSHOT_GROUP_LABEL", "example.org/group").expect("settings").group_label;
    assert_eq!(group.as_deref(), Some("example.org/group"));
    let freeze = |value| with("SNAPSHOT_FREEZE_TIMEOUT", value).expect("settings").freeze_timeout;
    assert_eq!((freeze("").as_secs(), freeze("5m").as_secs()), (30, 300));
    assert!(with("SNAPSHOT_NAME_PREFIX", &"x".repeat(54)).is_ok());
    let filter = with("RUST_LOG", "warn,kube_client=debug").expect("settings").log_filter;
    assert!(filter.would_enable("kube_client::client", &tracing::Level::DEBUG));
}

#[test]
fn an_empty_value_means_unset() {
    for name in NAMES.iter().filter(|name| !name.starts_with("SNAPSHOT_PVC_")) {
        for empty in ["", "  "] {
            let settings = with(name, empty).expect(name);
            assert_eq!(format!("{settings:?}"), format!("{:?}", with("SNAPSHOT_JOB", "").expect("settings")));
        }
    }
    assert!(parse(&[("SNAPSHOT_PVC_NAMES", ""), ("SNAPSHOT_PVC_SELECTOR", "app=web")]).is_ok());
}

#[test]
fn a_value_that_cannot_be_understood_is_refused_with_what_would_be_accepted() {
    for (name, value, accepted) in [
        ("SNAPSHOT_PVC_NAMES", "data,,logs", "e.g. data or data,logs"),
        ("SNAPSHOT_PVC_NAMES", "Data", "\"Data\" is not the name of a claim"),
        ("SNAPSHOT_EVERY", "daily", "\"daily\" is not a length of time; numbers with units are"),
        ("SNAPSHOT_ANNOTATIONS", "less", "neither any nor more"),
        ("SNAPSHOT_LABELS", "release", "\"release\" is not a label with its value"),
        ("SNAPSHOT_LABELS", "a=1,,b=2", "\"\" is not a label with its value"),
        ("SNAPSHOT_LABELS", "release=", "does not end with the value of a label"),
        ("SNAPSHOT_LABELS", "a b=1", "does not begin with the key of a label"),
        ("SNAPSHOT_LABELS", "a=1,a=2", "\"a=2\" is there twice"),
        ("SNAPSHOT_LABELS", "team=shop,job=x", "the label job is used by volume-snapshotter; accepted are"),
        ("SNAPSHOT_LABELS", "volume-snapshotter/hold=false", "is used by volume-snapshotter"),
        ("SNAPSHOT_LABELS", "app.kubernetes.io/instance=shop", "is used by Argo CD"),
        ("SNAPSHOT_NAMESPACE", "a.b", "at most 63 characters"),
        ("SNAPSHOT_HOOKS", "yes", "neither true nor false"),
        ("SNAPSHOT_FREEZE_TIMEOUT", "5m1s", "at most 5m"),
        ("SNAPSHOT_CLASS_NAME", "not a class", "lower-case letters"),
        ("SNAPSHOT_GROUP_LABEL", "a=b", "not the key of a label; accepted are letters"),
        ("SNAPSHOT_GROUP_CLASS_NAME", "default-group", "SNAPSHOT_GROUP_LABEL is not, so there are no groups"),
        (
            "SNAPSHOT_NAME_PREFIX",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "at most 54 characters",
        ),
        ("SNAPSHOT_NAME_PREFIX", "Upper", "lower-case letters"),
        ("SNAPSHOT_JOB", "no label!", "not the value of a label"),
        ("SNAPSHOT_READY_ATTEMPTS", "three", "from 1 to 1000"),
        ("SNAPSHOT_READY_ATTEMPTS", "0", "from 1 to 1000"),
        ("SNAPSHOT_READY_ATTEMPTS", "-1", "from 1 to 1000"),
        ("SNAPSHOT_READY_INTERVAL", "0", "30, 30s, 5m or 1m30s"),
        ("SNAPSHOT_READY_INTERVAL", "-5s", "30, 30s, 5m or 1m30s"),
        ("SNAPSHOT_READY_INTERVAL", "soon", "30, 30s, 5m or 1m30s"),
        ("SNAPSHOT_READY_INTERVAL", "99999999999999999999", "30, 30s, 5m or 1m30s"),
        ("SNAPSHOT_READY_INTERVAL", "2d", "e.g."),
        ("SNAPSHOT_READY_INTERVAL", "12h", "at most 24 h"),
        ("SNAPSHOT_RETENTION", "last=0", "a whole number from 1"),
        (
            "SNAPSHOT_RETENTION",
            "daily=7,minutely=60",
            "there is no such rule (at character 9: \"minutely=60\")",
        ),
        ("SNAPSHOT_RETENTION", "within=-3d", "is not above zero"),
        ("SNAPSHOT_CONCURRENCY", "0", "from 1 to 256"),
        ("SNAPSHOT_CONCURRENCY", "1e3", "from 1 to 256"),
        ("SNAPSHOT_DRY_RUN", "yes", "neither true nor false"),
        ("SNAPSHOT_HOLD", "1", "neither true nor false"),
        ("SNAPSHOT_SHARDS", "0", "from 1 to 1000"),
        ("SNAPSHOT_SHARDS", "many", "from 1 to 1000"),
        ("JOB_COMPLETION_INDEX", "first", "0 is accepted, for there is one shard"),
        ("SNAPSHOT_RUN_ID", "-", "not the value of a label"),
        ("SNAPSHOT_RUN_UID", "-", "not the value of a label"),
        ("SNAPSHOT_PRUNE_UNREAD_CLAIMS", "yes", "neither true nor false"),
        ("SNAPSHOT_EVENTS", "true", "all, warnings or off"),
        ("SNAPSHOT_PING_FAILURES", "none", "final or all"),
        ("SNAPSHOT_LOG_FORMAT", "xml", "text or json"),
        ("RUST_LOG", "info=info=info", "info,kube_client=debug"),
        ("RUST_LOG", "verbose", "info,kube_client=debug"),
        ("RUST_LOG", "info,kube", "info,kube_client=debug"),
    ] {
        let problems = with(name, value).expect_err(name).to_string();
        assert!(problems.starts_with("1 problem in the settings; nothing was changed\n"), "{problems}");
        assert!(problems.contains(&format!("  {name}")), "{problems}");
        assert!(problems.contains(accepted), "{name}={value}: {problems}");
    }
}

#[test]
fn a_url_is_refused_without_being_repeated() {
    for (value, accepted) in [
        ("s3cr3t.example/x", "http:// and https:// URLs"),
        ("ftp://host/s3cr3t", "http:// and https:// are accepted"),
        ("https://host/s3cr3t/{exti}", "{exit}, {status}, {state}, {duration_ms}"),
        ("https://host/s3cr3t with blanks", "percent-encoded"),
    ] {
        let problems = with("SNAPSHOT_PING_URL", value).expect_err(value).to_string();
        assert!(problems.contains("  SNAPSHOT_PING_URL: ") && problems.contains(accepted), "{problems}");
        assert!(!problems.contains("s3cr3t"), "{problems}");
    }
    let settings = with("SNAPSHOT_PING_URL", "https://me:s3cr3t@host/s3cr3t").expect("settings");
    assert!(!format!("{settings:?} {:?}", settings.ping()).contains("s3cr3t"));
}

#[test]
fn after_a_dry_run_nobody_is_pinged() {
    let parse = |dry_run| {
        let pairs = [
            ("SNAPSHOT_PVC_NAMES", "data"),
            ("SNAPSHOT_PING_URL", "https://host/s3cr3t"),
            ("SNAPSHOT_DRY_RUN", dry_run),
        ];
        parse(&pairs).expect("settings").ping()
    };
    assert!(parse("false").is_some());
    assert!(parse("true").is_none());
}

#[test]
fn pods_that_share_the_claims_do_not_share_a_check() {
    let shared = |url| {
        let pairs = [
            ("SNAPSHOT_PVC_NAMES", "data"),
            ("SNAPSHOT_SHARDS", "4"),
            ("JOB_COMPLETION_INDEX", "1"),
            ("SNAPSHOT_PING_URL", url),
        ];
        parse(&pairs).map(|_| ()).map_err(|problems| problems.to_string())
    };
    assert_eq!(shared("https://host/s3cr3t-{shard}/{exit}"), Ok(()));
    let problem = shared("https://host/s3cr3t/{exit}").expect_err("one would hide another");
    assert!(problem.contains("SNAPSHOT_PING_URL: each of several pods pings it"), "{problem}");
    assert!(problem.contains("{shard}") && !problem.contains("s3cr3t"), "{problem}");
}

#[test]
fn exactly_one_of_names_and_selector_is_set() {
    let both = parse(&[("SNAPSHOT_PVC_NAMES", "a"), ("SNAPSHOT_PVC_SELECTOR", "b")]).expect_err("both");
    assert!(both.to_string().contains("set exactly one of the two"), "{both}");
    let both = parse(&[("SNAPSHOT_PVC_NAMES", "a"), ("SNAPSHOT_PVC_ANNOTATED", "true")]).expect_err("both");
    assert!(
        both.to_string().contains("SNAPSHOT_PVC_ANNOTATED=true goes alone or with SNAPSHOT_PVC_SELECTOR"),
        "{both}"
    );
    assert!(parse(&[("SNAPSHOT_PVC_NAMES", "a"), ("SNAPSHOT_PVC_ANNOTATED", "false")]).is_ok());
    let alone = parse(&[("SNAPSHOT_PVC_ANNOTATED", "true")]).expect("alone");
    assert!(alone.only_annotated && alone.claims == ClaimChoice::Selector(String::new()));
    let with =
        parse(&[("SNAPSHOT_PVC_SELECTOR", "app=web"), ("SNAPSHOT_PVC_ANNOTATED", "true")]).expect("with");
    assert!(with.only_annotated && with.claims == ClaimChoice::Selector("app=web".into()));
    let neither = parse(&[]).expect_err("neither");
    assert!(
        neither.to_string().contains("neither SNAPSHOT_PVC_NAMES nor SNAPSHOT_PVC_SELECTOR"),
        "{neither}"
    );
}

#[test]
fn a_pod_of_several_has_to_know_which_one_it_is() {
    let shard = |shards, index| {
        parse(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_SHARDS", shards), ("JOB_COMPLETION_INDEX", index)])
            .map(|settings| settings.shard)
            .map_err(|problems| problems.to_string())
    };
    assert_eq!(shard("", ""), Ok(Shard::WHOLE));
    assert_eq!(shard("1", "0"), Ok(Shard::WHOLE));
    assert_eq!(shard("8", "7"), Ok(Shard::new(7, 8).expect("a shard")));
    for (shards, index, said) in [
        ("8", "", "JOB_COMPLETION_INDEX: not set, but SNAPSHOT_SHARDS is 8"),
        ("8", "8", "JOB_COMPLETION_INDEX=\"8\": not the index of a shard; a whole number from 0 to 7"),
        ("8", "-1", "a whole number from 0 to 7"),
        // An Indexed Job whose pods would all take all claims.
        ("", "1", "SNAPSHOT_SHARDS has to be the Job's completions"),
        ("x", "1", "SNAPSHOT_SHARDS=\"x\": not a number in range"),
    ] {
        let problems = shard(shards, index).expect_err(said);
        assert!(problems.contains(said) && problems.starts_with("1 problem"), "{problems}");
    }
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest_known_one() {
    for (name, nearest) in [
        ("SNAPSHOT_RETENTON", "SNAPSHOT_RETENTION"),
        ("SNAPSHOT_PVC_NAME", "SNAPSHOT_PVC_NAMES"),
        ("SNAPSHOT_CLASS", "SNAPSHOT_CLASS_NAME"),
        ("SNAPSHOT_READY_ATTEMTPS", "SNAPSHOT_READY_ATTEMPTS"),
        ("SNAPSHOT_dry_run", "SNAPSHOT_DRY_RUN"),
    ] {
        let problems = with(name, "x").expect_err(name).to_string();
        assert!(
            problems.contains(&format!("{name}: there is no such setting; the nearest is {nearest}")),
            "{problems}"
        );
    }
    let linked = with("SNAPSHOT_WEB_SERVICE_HOST", "10.0.0.1").expect_err("link").to_string();
    assert!(linked.contains("enableServiceLinks: false"), "{linked}");
}

#[test]
fn every_problem_is_reported_at_once() {
    let problems = parse(&[
        ("SNAPSHOT_RETENTON", "last=3"),
        ("SNAPSHOT_READY_ATTEMPTS", "three"),
        ("SNAPSHOT_DRY_RUN", "maybe"),
        ("SNAPSHOT_LOG_FORMAT", "json"),
        ("SNAPSHOT_TERMINATION_LOG", "/tmp/message"),
    ]);
    assert_eq!(
        problems.expect_err("problems").to_string(),
        "4 problems in the settings; nothing was changed\
         \n  SNAPSHOT_RETENTON: there is no such setting; the nearest is SNAPSHOT_RETENTION\
         \n  SNAPSHOT_PVC_NAMES: neither SNAPSHOT_PVC_NAMES nor SNAPSHOT_PVC_SELECTOR is set; set one of the \
         two, e.g. SNAPSHOT_PVC_NAMES=data or SNAPSHOT_PVC_SELECTOR=app=web, or SNAPSHOT_PVC_ANNOTATED=true\
         \n  SNAPSHOT_READY_ATTEMPTS=\"three\": not a number in range; a whole number from 1 to 1000 is accepted\
         \n  SNAPSHOT_DRY_RUN=\"maybe\": neither true nor false; one of these two is accepted"
    );
}

#[test]
fn problems_are_reported_in_the_form_and_place_that_was_asked_for() {
    let variables = [("SNAPSHOT_LOG_FORMAT", "json"), ("SNAPSHOT_TERMINATION_LOG", "/tmp/message")];
    let variables = variables.map(|(name, value)| (name.into(), value.into()));
    let (_, fallback) = Settings::parse_or_fallback(variables).expect_err("no claim");
    assert_eq!(fallback.log_format, Some(LogFormat::Json));
    assert_eq!(fallback.termination_log, PathBuf::from("/tmp/message"));
    assert!(fallback.ping.is_none());
}

#[test]
fn problems_can_be_pinged_as_well() {
    let variables = [("SNAPSHOT_PING_URL", "https://host/s3cr3t"), ("SNAPSHOT_JOB", "nightly")];
    let variables = variables.map(|(name, value)| (name.into(), value.into()));
    let (_, fallback) = Settings::parse_or_fallback(variables).expect_err("no claim");
    let ping = fallback.ping.expect("a ping");
    assert_eq!((ping.url.to_string().as_str(), ping.schedule.as_str()), ("https://host", "nightly"));
}

#[cfg(unix)]
#[test]
fn a_secret_that_is_not_utf_8_is_not_repeated() {
    use std::os::unix::ffi::OsStringExt;
    let url = OsString::from_vec(b"https://host/s3cr3t\xff".to_vec());
    let variables = [("SNAPSHOT_PVC_NAMES".into(), "data".into()), ("SNAPSHOT_PING_URL".into(), url)];
    let problems = Settings::parse(variables).expect_err("not UTF-8").to_string();
    assert!(problems.contains("SNAPSHOT_PING_URL: the value is not valid UTF-8"), "{problems}");
    assert!(!problems.contains("s3cr3t"), "{problems}");
}

#[cfg(unix)]
#[test]
fn what_is_not_utf_8_is_a_problem_and_not_a_panic() {
    use std::os::unix::ffi::OsStringExt;
    let broken = |text: &str| OsString::from_vec([text.as_bytes(), b"\xff"].concat());
    for (name, value) in [("SNAPSHOT_JOB".into(), broken("a")), (broken("SNAPSHOT_JO"), "a".into())] {
        let problems = Settings::parse([("SNAPSHOT_PVC_NAMES".into(), "data".into()), (name, value)]);
        assert!(problems.expect_err("not UTF-8").to_string().contains("not valid UTF-8"));
    }
    let other = [("SNAPSHOT_PVC_NAMES".into(), "data".into()), (broken("OTHER"), broken("x"))];
    assert!(Settings::parse(other).is_ok());
}

proptest! {
    #[test]
    fn whatever_is_set_is_understood_or_refused_in_words(
        pairs in proptest::collection::vec((0..NAMES.len(), "\\PC{0,40}"), 0..6),
        unknown in proptest::option::of("SNAPSHOT_[A-Z_]{0,80}"),
    ) {
        let known = pairs.iter().map(|(index, value)| (NAMES[*index].into(), value.into()));
        let unknown = unknown.map(|name| (name.into(), "x".into()));
        if let Err(problems) = Settings::parse(known.chain(unknown)) {
            let said = problems.to_string();
            prop_assert!(said.lines().count() >= 2);
            prop_assert!(said.lines().skip(1).all(|line| ["  SNAPSHOT_", "  RUST_LOG", "  JOB_COMPLETION_INDEX"].iter().any(|name| line.starts_with(name))), "{}", said);
        }
    }
}
