//! What a user writes: `last=3`, `all`, and combinations. What the rules keep is in
//! [`super::policy`].

use std::{fmt, num::NonZeroU32, str::FromStr};

/// Rules of which any one keeps a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Keeps the N newest.
    Last(NonZeroU32),
    /// Keeps everything.
    All,
}

/// Why a text is not a set of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// Where the offending text begins, counted in characters from 1.
    pub position: usize,
    /// The offending text.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What is accepted, for error messages.
const ACCEPTED: &str = "last=N and all are accepted, comma-separated, e.g. last=1 or last=24";

impl Rules {
    /// The rules, in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = Rule> {
        self.0.iter().copied()
    }
}

impl Default for Rules {
    /// `last=1`, as the bash script has it.
    fn default() -> Self {
        Rules(vec![Rule::Last(NonZeroU32::MIN)])
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
    match (name, value) {
        ("", None) => Err("a rule is missing".to_owned()),
        ("all", None) => Ok(Rule::All),
        ("all", Some(_)) => Err("all takes no value".to_owned()),
        ("last", None) => Err("last needs a number".to_owned()),
        ("last", Some(value)) => match value.parse() {
            Ok(number) => Ok(Rule::Last(number)),
            Err(_) => Err(format!("{value:?} is not a number from 1 to {}", u32::MAX)),
        },
        _ => Err("there is no such rule".to_owned()),
    }
}

impl Rule {
    /// The word that the rule is written with.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Last(_) => "last",
            Rule::All => "all",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Last(number) => write!(f, "last={number}"),
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
        write!(f, "{problem} (at character {position}: {text:?}); {ACCEPTED}")
    }
}

impl std::error::Error for RuleError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_written_alike() {
        for (text, written) in [
            ("last=1", "last=1"),
            (" last = 24 ", "last=24"),
            ("all", "all"),
            ("last=3, all", "last=3,all"),
            ("last=4294967295", "last=4294967295"),
        ] {
            let rules: Rules = text.parse().expect(text);
            assert_eq!(rules.to_string(), written);
            assert_eq!(written.parse(), Ok(rules));
        }
        assert_eq!(Rules::default().to_string(), "last=1");
    }

    #[test]
    fn what_is_no_rule_is_an_error_with_its_position() {
        for (text, position, offending, problem) in [
            ("", 1, "", "a rule is missing"),
            ("last=1,", 8, "", "a rule is missing"),
            ("last", 1, "last", "last needs a number"),
            ("last=", 1, "last=", "\"\" is not a number"),
            ("last=0", 1, "last=0", "\"0\" is not a number from 1"),
            ("last=-1", 1, "last=-1", "\"-1\" is not a number"),
            ("last=4294967296", 1, "last=4294967296", "is not a number"),
            ("last=1, last=2", 9, "last=2", "last is given twice"),
            ("all=1", 1, "all=1", "all takes no value"),
            ("last=1,daily=7", 8, "daily=7", "there is no such rule"),
            ("LAST=1", 1, "LAST=1", "there is no such rule"),
            ("ä,last=1", 1, "ä", "there is no such rule"),
        ] {
            let error = text.parse::<Rules>().expect_err(text);
            assert_eq!((error.position, error.text.as_str()), (position, offending), "{text}");
            assert!(error.problem.contains(problem), "{text}: {error}");
            assert!(error.to_string().contains("e.g. last=1"), "{text}: {error}");
        }
    }
}
