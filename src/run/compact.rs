//! Snapshots in as little memory as their text allows: a hundred thousand of them fit into a small pod.
//!
//! Nearly all snapshots of a schedule look alike: the name ends in eight hexadecimal digits, the uid is a UUID,
//! the resourceVersion is a number, times are whole seconds, and there is neither an error nor an owner. These
//! are numbers here. What is different in anything is kept as it is, so that nothing is ever changed by it.

use std::{collections::HashMap, rc::Rc};

use k8s_openapi::jiff::Timestamp;

use crate::snapshot::{CLOCK_TOLERANCE, Snapshot};

/// A snapshot as it is remembered.
#[derive(Debug)]
pub(super) enum Compact {
    Plain(Plain),
    Whole(Box<Snapshot>),
}

/// A snapshot that is all numbers, and texts that others have as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plain {
    uid: [u8; 16],
    resource_version: u64,
    /// Seconds since 1970, up to 2106.
    created: u32,
    /// Likewise; 0 stands for none, as for the snapshot controller.
    taken_at: u32,
    /// What the name begins with, up to the last hyphen.
    prefix: Text,
    /// The digits that it ends in.
    suffix: u32,
    run: Text,
    run_uid: Text,
    claim_uid: Text,
    taken_up: bool,
    ready: bool,
}

/// A text in [`Texts`]; 0 stands for none.
type Text = u32;

/// The texts that many snapshots share: of each one copy.
#[derive(Debug, Default)]
pub(super) struct Texts {
    all: Vec<Rc<str>>,
    numbers: HashMap<Rc<str>, Text>,
}

impl Texts {
    /// The copy that all share.
    pub(super) fn shared(&self, text: &str) -> Option<Rc<str>> {
        self.numbers.get_key_value(text).map(|(text, _)| Rc::clone(text))
    }

    /// Lets a text that somebody has already be the copy that all share.
    pub(super) fn share(&mut self, text: Rc<str>) {
        if !self.numbers.contains_key(&text) {
            self.add(text);
        }
    }

    fn number(&mut self, text: Option<&str>) -> Option<Text> {
        let Some(text) = text else { return Some(0) };
        match self.numbers.get(text) {
            Some(number) => Some(*number),
            None => self.add(text.into()),
        }
    }

    fn add(&mut self, text: Rc<str>) -> Option<Text> {
        let number = Text::try_from(self.all.len() + 1).ok()?;
        self.all.push(Rc::clone(&text));
        self.numbers.insert(text, number);
        Some(number)
    }

    fn get(&self, number: Text) -> Option<&str> {
        self.all.get(usize::try_from(number.checked_sub(1)?).ok()?).map(AsRef::as_ref)
    }

    fn text(&self, number: Text) -> Option<String> {
        self.get(number).map(str::to_owned)
    }
}

impl Compact {
    pub(super) fn new(snapshot: Snapshot, texts: &mut Texts) -> Self {
        match Plain::of(&snapshot, texts) {
            Some(plain) => {
                debug_assert_eq!(plain.snapshot(texts), snapshot);
                Compact::Plain(plain)
            }
            None => Compact::Whole(Box::new(snapshot)),
        }
    }

    /// The snapshot as it was read.
    pub(super) fn snapshot(&self, texts: &Texts) -> Snapshot {
        match self {
            Compact::Plain(plain) => plain.snapshot(texts),
            Compact::Whole(snapshot) => (**snapshot).clone(),
        }
    }

    /// See [`Snapshot::time`].
    pub(super) fn time(&self) -> Timestamp {
        match self {
            Compact::Plain(plain) => time(plain.created.max(plain.taken_at)),
            Compact::Whole(snapshot) => snapshot.time(),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        match self {
            Compact::Plain(plain) => plain.ready,
            Compact::Whole(snapshot) => snapshot.ready,
        }
    }

    pub(super) fn claim_uid<'a>(&'a self, texts: &'a Texts) -> Option<&'a str> {
        match self {
            Compact::Plain(plain) => texts.get(plain.claim_uid),
            Compact::Whole(snapshot) => snapshot.claim_uid.as_deref(),
        }
    }

    /// Whether two states of a snapshot differ in nothing that a judgement depends on. The snapshot controller
    /// goes on writing to a snapshot that is ready.
    pub(super) fn is_judged_alike(&self, now: &Self, texts: &Texts) -> bool {
        if let (Compact::Plain(before), Compact::Plain(now)) = (self, now) {
            let Plain { resource_version, taken_up, .. } = *now;
            return Plain { resource_version, taken_up, ..*before } == *now;
        }
        let (mut before, now) = (self.snapshot(texts), now.snapshot(texts));
        before.resource_version.clone_from(&now.resource_version);
        before.error.clone_from(&now.error);
        before.taken_up = now.taken_up;
        before == now
    }

    /// Whether it is in the state of this resourceVersion.
    pub(super) fn is_of_version(&self, resource_version: &str) -> bool {
        match self {
            Compact::Plain(plain) => number(resource_version) == Some(plain.resource_version),
            Compact::Whole(snapshot) => snapshot.resource_version == resource_version,
        }
    }

    /// The resourceVersion, if it is a number.
    pub(super) fn version(&self) -> Option<u64> {
        match self {
            Compact::Plain(plain) => Some(plain.resource_version),
            Compact::Whole(snapshot) => snapshot.resource_version.parse().ok(),
        }
    }

    /// Whether there is nothing to be said of it: neither is it held or being deleted, nor owned, nor is anything
    /// wrong with its status or its times.
    pub(super) fn is_usual(&self) -> bool {
        match self {
            Compact::Plain(Plain { created, taken_at, .. }) => {
                *taken_at == 0 || time(*taken_at).duration_since(time(*created)).abs() <= CLOCK_TOLERANCE
            }
            Compact::Whole(_) => false,
        }
    }

    pub(super) fn uid(&self) -> Uid<&str> {
        match self {
            Compact::Plain(plain) => Uid::Number(plain.uid),
            Compact::Whole(snapshot) => Uid::of(&snapshot.uid),
        }
    }
}

/// A uid, in an order that sorts and searches by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Uid<T> {
    Number([u8; 16]),
    Other(T),
}

impl<'a, T: From<&'a str>> Uid<T> {
    pub(super) fn of(uid: &'a str) -> Self {
        uuid(uid).map_or_else(|| Uid::Other(uid.into()), Uid::Number)
    }
}

impl Plain {
    /// `None` if anything of it could not be written out again as it is.
    fn of(snapshot: &Snapshot, texts: &mut Texts) -> Option<Self> {
        // Destructured, so that a field that is added cannot be forgotten here.
        let Snapshot {
            name,
            uid,
            resource_version,
            created,
            taken_at,
            taken_up,
            ready,
            unreadable: false,
            incomplete: false,
            held: false,
            terminating_since: None,
            owner: None,
            run,
            run_uid,
            claim_uid,
            verified: false,
            error: None,
        } = snapshot
        else {
            return None;
        };
        let (prefix, digits) = name.rsplit_once('-')?;
        let is_suffix = digits.len() == 8 && digits.bytes().all(is_lower_hex);
        Some(Plain {
            uid: uuid(uid)?,
            resource_version: number(resource_version)?,
            created: seconds(*created)?,
            taken_at: match taken_at {
                None => 0,
                Some(taken_at) => seconds(*taken_at).filter(|seconds| *seconds != 0)?,
            },
            suffix: is_suffix.then(|| u32::from_str_radix(digits, 16).ok()).flatten()?,
            prefix: texts.number(Some(prefix))?,
            run: texts.number(run.as_deref())?,
            run_uid: texts.number(run_uid.as_deref())?,
            claim_uid: texts.number(claim_uid.as_deref())?,
            taken_up: *taken_up,
            ready: *ready,
        })
    }

    fn snapshot(&self, texts: &Texts) -> Snapshot {
        Snapshot {
            name: format!("{}-{:08x}", texts.text(self.prefix).unwrap_or_default(), self.suffix),
            uid: uuid_text(self.uid),
            resource_version: self.resource_version.to_string(),
            created: time(self.created),
            taken_at: (self.taken_at != 0).then(|| time(self.taken_at)),
            taken_up: self.taken_up,
            ready: self.ready,
            unreadable: false,
            incomplete: false,
            held: false,
            terminating_since: None,
            owner: None,
            run: texts.text(self.run),
            run_uid: texts.text(self.run_uid),
            claim_uid: texts.text(self.claim_uid),
            verified: false,
            error: None,
        }
    }
}

fn seconds(time: Timestamp) -> Option<u32> {
    u32::try_from(time.as_second()).ok().filter(|_| time.subsec_nanosecond() == 0)
}

/// A number without leading zeros or a sign.
fn number(text: &str) -> Option<u64> {
    let is_written_so =
        text == "0" || text.bytes().next().is_some_and(|first| (b'1'..=b'9').contains(&first));
    is_written_so.then(|| text.parse().ok()).flatten()
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn time(seconds: u32) -> Timestamp {
    Timestamp::from_second(seconds.into()).unwrap_or(Timestamp::MAX)
}

/// The number that a UUID is, if it is written as Kubernetes writes it.
fn uuid(text: &str) -> Option<[u8; 16]> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    if text.len() != 36 {
        return None;
    }
    let (mut number, mut digits) = ([0; 16], 0);
    for (at, byte) in text.bytes().enumerate() {
        if HYPHENS.contains(&at) {
            if byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        let half: &mut u8 = number.get_mut(digits / 2)?;
        *half = *half << 4 | digit;
        digits += 1;
    }
    Some(number)
}

fn uuid_text(number: [u8; 16]) -> String {
    let number = u128::from_be_bytes(number);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        number >> 96,
        (number >> 80) & 0xffff,
        (number >> 64) & 0xffff,
        (number >> 48) & 0xffff,
        number & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;

    use super::*;
    use crate::snapshot::Owner;

    fn plain() -> Snapshot {
        Snapshot {
            uid: "0c9f9b0e-5d3c-4f33-9a39-3b2f6a4f1b00".to_owned(),
            resource_version: "18446744073709551615".to_owned(),
            run: Some("hourly-1".to_owned()),
            claim_uid: Some("00000000-0000-0000-0000-000000000001".to_owned()),
            ..Snapshot::ready_at("volume-snapshot-0a1b2c3d", "2026-11-20T08:55:11Z".parse().expect("a time"))
        }
    }

    #[test]
    fn a_usual_snapshot_is_all_numbers_and_comes_back_as_it_was() {
        let mut texts = Texts::default();
        let compact = Compact::new(plain(), &mut texts);
        assert!(matches!(compact, Compact::Plain(_)));
        assert_eq!(compact.snapshot(&texts), plain());
        assert!(size_of::<Compact>() <= 56, "{} bytes", size_of::<Compact>());
    }

    #[test]
    fn whatever_is_unusual_comes_back_as_it_was() {
        let time = |text: &str| text.parse::<Timestamp>().expect("a time");
        let unusual: [fn(&mut Snapshot); 27] = [
            |one| one.name = "old".into(),
            |one| one.name = "volume-snapshot-0A1B2C3D".into(),
            |one| one.name = "volume-snapshot-a1b2c3d".into(),
            |one| one.name = "volume-snapshot-+a1b2c3d".into(),
            |one| one.name = "-00000000".into(),
            |one| one.uid = "u1".into(),
            |one| one.uid = "0C9F9B0E-5D3C-4F33-9A39-3B2F6A4F1B00".into(),
            |one| one.uid = "0c9f9b0e5d3c4f339a393b2f6a4f1b00".into(),
            |one| one.uid = "0c9f9b0e5d3c-4f33-9a39-3b2f-6a4f1b00".into(),
            |one| one.resource_version = String::new(),
            |one| one.resource_version = "007".into(),
            |one| one.resource_version = "18446744073709551616".into(),
            |one| one.created = Timestamp::MAX,
            |one| one.created = Timestamp::UNIX_EPOCH,
            |one| one.created = Timestamp::MIN,
            |one| one.taken_at = None,
            |one| one.taken_at = Some(Timestamp::UNIX_EPOCH),
            |one| (one.ready, one.taken_up) = (false, false),
            |one| one.unreadable = true,
            |one| one.incomplete = true,
            |one| one.held = true,
            |one| one.terminating_since = Some(Timestamp::UNIX_EPOCH),
            |one| one.owner = Some(Owner::Group),
            |one| one.owner = Some(Owner::Other),
            |one| one.run = Some(String::new()),
            |one| one.error = Some("full".into()),
            |one| (one.run, one.run_uid) = (None, Some("j".into())),
        ];
        let mut texts = Texts::default();
        for (number, change) in unusual.into_iter().enumerate() {
            let mut snapshot = plain();
            change(&mut snapshot);
            let compact = Compact::new(snapshot.clone(), &mut texts);
            assert_eq!(compact.snapshot(&texts), snapshot, "{number}");
            assert_eq!(compact.uid(), Uid::of(&snapshot.uid), "{number}");
            assert_eq!(compact.time(), snapshot.time(), "{number}");
            assert_eq!(compact.is_ready(), snapshot.ready, "{number}");
            assert_eq!(compact.claim_uid(&texts), snapshot.claim_uid.as_deref(), "{number}");
        }
        let odd_times = Snapshot {
            created: time("2026-11-20T08:55:11.5Z"),
            taken_at: Some(time("2026-11-20T08:55:11.000000001Z")),
            ..plain()
        };
        assert_eq!(Compact::new(odd_times.clone(), &mut texts).snapshot(&texts), odd_times);
    }

    #[test]
    fn a_snapshot_whose_clocks_differ_is_not_usual() {
        let mut texts = Texts::default();
        for (seconds, is_usual) in [(0, true), (300, true), (301, false), (-300, true), (-301, false)] {
            let mut snapshot = plain();
            snapshot.taken_at = Some(snapshot.created + SignedDuration::from_secs(seconds));
            assert_eq!(snapshot.clocks_differ(), !is_usual, "{seconds}");
            let compact = Compact::new(snapshot.clone(), &mut texts);
            assert!(matches!(compact, Compact::Plain(_)), "{seconds}");
            assert_eq!(compact.is_usual(), is_usual, "{seconds}");
            assert_eq!(compact.time(), snapshot.time(), "{seconds}");
        }
        assert!(!Compact::new(Snapshot { held: true, ..plain() }, &mut texts).is_usual());
    }
}
