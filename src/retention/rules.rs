//! The syntax of rules: `last=3,daily=7,within=14d`. [`super::keep`] defines what each rule keeps.

use std::{fmt, num::NonZeroU32, str::FromStr};

use super::durations::{Deltas, Window};

/// A set of rules. A snapshot is kept if any rule keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    Last(Count),
    /// Keeps the newest of each of the last N periods that have one, like restic's `--keep-hourly` to
    /// `--keep-yearly`.
    Each(Period, Count),
    /// Keeps all that are younger than this, relative to the newest.
    Within(Window),
    /// Keeps the newest of each period among those that are younger than this, like restic's
    /// `--keep-within-hourly` to `--keep-within-yearly`.
    WithinEach(Period, Window),
    Deltas(Deltas),
    /// Keeps the N newest of those that a drill has verified.
    Verified(Count),
    All,
}

/// How many snapshots a rule keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    AtMost(NonZeroU32),
    /// As many as there are, like restic's -1.
    All,
}

/// A period of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    Hour,
    Day,
    /// An ISO 8601 week, from Monday to Sunday.
    Week,
    Month,
    Year,
}

/// A parse error, with its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// Position of the invalid rule, in characters, counted from 1.
    pub position: usize,
    pub text: String,
    pub problem: String,
}

const ACCEPTED: &str = "accepted are last=N, hourly=N, daily=N, weekly=N, monthly=N, yearly=N (N may be all), \
                        within=DURATION, within-hourly=DURATION to within-yearly=DURATION, deltas=DURATIONS, \
                        verified=N and all, comma-separated, e.g. last=3,daily=7,within=14d";

impl Rules {
    /// Iterates over the rules in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    /// Returns rules that keep whatever these or the others keep.
    pub fn or(&self, others: &Self) -> Self {
        let mut rules = self.0.clone();
        rules.extend(others.iter().filter(|rule| !self.0.contains(rule)).cloned());
        Rules(rules)
    }

    /// Parses the annotation of k8s-snapshots, such as `PT1H P1D P7D`, into a `deltas` rule.
    ///
    /// # Errors
    /// Durations that k8s-snapshots rejects, or on which it hangs or fails.
    pub fn of_deltas(text: &str) -> Result<Self, RuleError> {
        match text.parse() {
            Ok(deltas) => Ok(Rules(vec![Rule::Deltas(deltas)])),
            Err(problem) => {
                let indent = text.chars().take_while(|character| character.is_whitespace()).count();
                Err(RuleError { position: indent + 1, text: text.trim().to_owned(), problem })
            }
        }
    }
}

impl Default for Rules {
    /// Returns `last=1`, the behaviour of the bash script.
    fn default() -> Self {
        Rules(vec![Rule::Last(Count::AtMost(NonZeroU32::MIN))])
    }
}

impl FromStr for Rules {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let mut rules: Vec<Rule> = Vec::new();
        let mut position = 1;
        for part in text.split(',') {
            let indent = part.chars().take_while(|character| character.is_whitespace()).count();
            let error = |problem: String| RuleError {
                position: position + indent,
                text: part.trim().to_owned(),
                problem,
            };
            let rule = parse_rule(part.trim()).map_err(error)?;
            if rules.iter().any(|other| other.name() == rule.name()) {
                return Err(error(format!("{} is given twice", rule.name())));
            }
            rules.push(rule);
            position += part.chars().count() + 1;
        }
        Ok(Rules(rules))
    }
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (text, None),
    };
    let needed = || value.ok_or_else(|| format!("{name} needs a value"));
    let count = || match needed()? {
        "all" => Ok(Count::All),
        value => match value.parse() {
            Ok(number) => Ok(Count::AtMost(number)),
            Err(_) => Err(format!("{value:?} is not a whole number from 1 to {}, nor all", u32::MAX)),
        },
    };
    match name {
        "last" => Ok(Rule::Last(count()?)),
        "hourly" => Ok(Rule::Each(Period::Hour, count()?)),
        "daily" => Ok(Rule::Each(Period::Day, count()?)),
        "weekly" => Ok(Rule::Each(Period::Week, count()?)),
        "monthly" => Ok(Rule::Each(Period::Month, count()?)),
        "yearly" => Ok(Rule::Each(Period::Year, count()?)),
        "within" => Ok(Rule::Within(needed()?.parse()?)),
        "within-hourly" => Ok(Rule::WithinEach(Period::Hour, needed()?.parse()?)),
        "within-daily" => Ok(Rule::WithinEach(Period::Day, needed()?.parse()?)),
        "within-weekly" => Ok(Rule::WithinEach(Period::Week, needed()?.parse()?)),
        "within-monthly" => Ok(Rule::WithinEach(Period::Month, needed()?.parse()?)),
        "within-yearly" => Ok(Rule::WithinEach(Period::Year, needed()?.parse()?)),
        "deltas" => Ok(Rule::Deltas(needed()?.parse()?)),
        "verified" => Ok(Rule::Verified(count()?)),
        "all" if value.is_none() => Ok(Rule::All),
        "all" => Err("all takes no value".to_owned()),
        "" if value.is_none() => Err("a rule is missing".to_owned()),
        _ => Err("there is no such rule".to_owned()),
    }
}

impl Rule {
    /// Returns the rule's keyword.
    pub fn name(&self) -> &'static str {
        match self {
            Rule::Last(_) => "last",
            Rule::Each(Period::Hour, _) => "hourly",
            Rule::Each(Period::Day, _) => "daily",
            Rule::Each(Period::Week, _) => "weekly",
            Rule::Each(Period::Month, _) => "monthly",
            Rule::Each(Period::Year, _) => "yearly",
            Rule::Within(_) => "within",
            Rule::WithinEach(Period::Hour, _) => "within-hourly",
            Rule::WithinEach(Period::Day, _) => "within-daily",
            Rule::WithinEach(Period::Week, _) => "within-weekly",
            Rule::WithinEach(Period::Month, _) => "within-monthly",
            Rule::WithinEach(Period::Year, _) => "within-yearly",
            Rule::Deltas(_) => "deltas",
            Rule::Verified(_) => "verified",
            Rule::All => "all",
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Count::AtMost(number) => number.fmt(f),
            Count::All => f.write_str("all"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Last(count) | Rule::Each(_, count) | Rule::Verified(count) => {
                write!(f, "{}={count}", self.name())
            }
            Rule::Within(window) | Rule::WithinEach(_, window) => write!(f, "{}={window}", self.name()),
            Rule::Deltas(deltas) => write!(f, "deltas={deltas}"),
            Rule::All => f.write_str("all"),
        }
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            rule.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuleError { position, text, problem } = self;
        let text = crate::text::foreign(text);
        write!(f, "{problem} (at character {position}: {text:?}); {ACCEPTED}")
    }
}

impl std::error::Error for RuleError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rules_are_read_and_written_alike() {
        for (text, written) in [
            ("last=1", "last=1"),
            (" last = 24 ", "last=24"),
            ("all", "all"),
            ("last=3, all", "last=3,all"),
            ("last=4294967295", "last=4294967295"),
            (
                "hourly=24,daily=7,weekly=5,monthly=12,yearly=10",
                "hourly=24,daily=7,weekly=5,monthly=12,yearly=10",
            ),
            ("within=14d , daily=30", "within=14d,daily=30"),
            ("within=1y 6mo", "within=1y 6mo"),
            ("deltas= PT1H  P1D P7D,last=2", "deltas=PT1H P1D P7D,last=2"),
            ("last=all", "last=all"),
            ("daily=7, monthly = all", "daily=7,monthly=all"),
            (
                "within-hourly=1d,within-daily=7d,within-weekly=1mo,within-monthly=1y,within-yearly=9999y",
                "within-hourly=1d,within-daily=7d,within-weekly=1mo,within-monthly=1y,within-yearly=9999y",
            ),
            ("within=1d,within-daily= 1y1d1mo ,daily=3", "within=1d,within-daily=1y1d1mo,daily=3"),
        ] {
            let rules: Rules = text.parse().expect(text);
            assert_eq!(rules.to_string(), written);
            assert_eq!(written.parse(), Ok(rules));
        }
        assert_eq!(Rules::default().to_string(), "last=1");
        assert_eq!(Rules::of_deltas(" P7D P1D").map(|rules| rules.to_string()), Ok("deltas=P7D P1D".into()));
    }

    #[test]
    fn what_is_no_rule_is_an_error_with_its_position() {
        for (text, position, offending, problem) in [
            ("", 1, "", "a rule is missing"),
            ("last=1,", 8, "", "a rule is missing"),
            ("last", 1, "last", "last needs a value"),
            ("last=", 1, "last=", "\"\" is not a whole number"),
            ("last=0", 1, "last=0", "\"0\" is not a whole number from 1"),
            ("daily=-1", 1, "daily=-1", "\"-1\" is not a whole number"),
            ("daily=1.5", 1, "daily=1.5", "\"1.5\" is not a whole number"),
            ("last=4294967296", 1, "last=4294967296", "is not a whole number"),
            ("last=1, last=2", 9, "last=2", "last is given twice"),
            ("daily=1,weekly=1,daily=1", 18, "daily=1", "daily is given twice"),
            ("all=1", 1, "all=1", "all takes no value"),
            ("last=1,minutely=7", 8, "minutely=7", "there is no such rule"),
            ("keep-daily=7", 1, "keep-daily=7", "there is no such rule"),
            ("LAST=1", 1, "LAST=1", "there is no such rule"),
            ("=1", 1, "=1", "there is no such rule"),
            ("last=1 daily=7", 1, "last=1 daily=7", "is not a whole number"),
            ("ä,last=1", 1, "ä", "there is no such rule"),
            ("within=soon", 1, "within=soon", "is not a length of time"),
            ("within=", 1, "within=", "is not a length of time"),
            ("last=1,deltas=P1D", 8, "deltas=P1D", "at least two"),
            ("daily=ALL", 1, "daily=ALL", "\"ALL\" is not a whole number from 1 to 4294967295, nor all"),
            ("daily=unlimited", 1, "daily=unlimited", "nor all"),
            ("within=all", 1, "within=all", "is not a length of time"),
            ("within-daily", 1, "within-daily", "within-daily needs a value"),
            ("within-daily=7", 1, "within-daily=7", "is not a length of time"),
            ("within-daily=2m2h", 1, "within-daily=2m2h", "may be minutes or months"),
            ("within-minutely=7d", 1, "within-minutely=7d", "there is no such rule"),
            ("within-daily=7d,within-daily=8d", 17, "within-daily=8d", "within-daily is given twice"),
        ] {
            let error = text.parse::<Rules>().expect_err(text);
            assert_eq!((error.position, error.text.as_str()), (position, offending), "{text}");
            assert!(error.problem.contains(problem), "{text}: {error}");
            assert!(error.to_string().contains("e.g. last=3,daily=7"), "{text}: {error}");
        }
        let error = Rules::of_deltas("  P1M P7D").expect_err("months");
        assert_eq!((error.position, error.text.as_str()), (3, "P1M P7D"));
    }

    proptest! {
        #[test]
        fn any_text_is_rules_or_an_error_in_words(text in "\\PC{0,60}") {
            if let Err(error) = text.parse::<Rules>() {
                prop_assert!(!error.to_string().contains('\n'));
            }
            let _ = Rules::of_deltas(&text);
        }

        #[test]
        fn what_is_accepted_is_read_alike_when_written(
            text in "(last|hourly|daily|weekly|monthly|yearly)=([1-9][0-9]{0,4}|all)(,within(-(hourly|daily|weekly|monthly|yearly))?=[1-9]{1,3}[hdw])?(,deltas=PT[1-9]H P[1-9]D)?(,all)?"
        ) {
            let rules: Rules = text.parse().expect("rules");
            prop_assert_eq!(rules.to_string().parse(), Ok(rules));
        }
    }
}
