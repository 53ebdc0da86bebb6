//! The justfile's recipes, and what names them.

use std::{collections::BTreeMap, fs, process::Command};

use super::{files, none_of, output, skip, text};
use crate::manifests::top;

/// How many arguments a recipe takes.
#[derive(Debug, PartialEq)]
struct Arguments {
    least: usize,
    most: usize,
}

/// The recipes of a justfile; a name that is given twice is an error, as it is for `just`.
fn recipes(justfile: &str) -> Result<BTreeMap<String, Arguments>, String> {
    let mut recipes = BTreeMap::new();
    for line in
        justfile.lines().filter(|line| line.starts_with(|c: char| c.is_alphabetic() || "@_".contains(c)))
    {
        let Some(header) = header(line) else { continue };
        let mut words = header.split_whitespace();
        let first = words.next().unwrap_or_default().trim_start_matches('@');
        let (name, parameters) = match first {
            "alias" => (words.next().unwrap_or_default(), Vec::new()),
            name => (name, words.collect()),
        };
        let mut arguments = Arguments { least: 0, most: 0 };
        for parameter in parameters {
            let variadic = parameter.starts_with(['*', '+']);
            let optional = parameter.starts_with('*') || parameter.contains('=');
            arguments.least += usize::from(!optional);
            arguments.most = arguments.most.saturating_add(if variadic { usize::MAX } else { 1 });
        }
        if recipes.insert(name.to_owned(), arguments).is_some() {
            return Err(format!("the recipe {name} is defined twice"));
        }
    }
    Ok(recipes)
}

/// What stands before the colon of a recipe's first line, each parameter as one word; nothing if the line is a setting
/// or an assignment.
fn header(line: &str) -> Option<String> {
    let mut header = String::new();
    let (mut quote, mut depth) = (None, 0_usize);
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(open), _) => {
                if c == open {
                    quote = None;
                }
                // A value's own spaces must not make words.
                header.push(if c.is_whitespace() { '_' } else { c });
                continue;
            }
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, ':') if depth == 0 => {
                let assignment = rest.peek() == Some(&'=');
                return (!assignment || line.starts_with("alias ")).then_some(header);
            }
            _ => {}
        }
        header.push(if depth > 0 && c.is_whitespace() { '_' } else { c });
    }
    None
}

/// Every `just …` that a person is told to type: in Markdown the code, elsewhere what stands in backquotes; in scripts
/// and in what the demo prints the commands as well.
fn just_lines() -> Vec<(String, Vec<String>)> {
    let mut lines = Vec::new();
    for file in files() {
        let shown = file.display().to_string();
        let Ok(text) = fs::read_to_string(top().join(&file)) else { continue };
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let is_script = text.starts_with("#!");
        for (number, line) in text.lines().enumerate() {
            let mut code: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
            let is_command = match extension {
                "md" => line.trim_start().starts_with("just "),
                "rs" => line.contains("println!"),
                "yml" | "yaml" => !line.trim_start().starts_with('#'),
                _ => is_script && !line.trim_start().starts_with('#'),
            };
            if is_command {
                code.push(line);
            }
            for code in code {
                // A comment behind a command, and what ends one.
                let code = code.split(" #").next().unwrap_or_default();
                let words: Vec<&str> =
                    code.split(|c: char| c.is_whitespace() || "\"'();&|".contains(c)).collect();
                for (index, _) in words.iter().enumerate().filter(|(_, word)| **word == "just") {
                    // Where a command begins; in the middle of a sentence it is the adverb.
                    let before = index.checked_sub(1).map_or("", |before| words[before]);
                    if !before.is_empty() && !before.ends_with(':') {
                        continue;
                    }
                    let said = words[index + 1..].iter().take_while(|word| !word.is_empty());
                    let said: Vec<String> = said.map(|word| (*word).to_owned()).collect();
                    lines.push((format!("{shown}:{}", number + 1), said));
                }
            }
        }
    }
    lines
}

#[test]
fn a_justfile_is_read_as_just_reads_it() {
    let text = "set shell := [\"bash\"]\nexport A := env(\"A\", \"b\")\nalias b := build\n\n# Build: all of it.\n\
                @_hidden:\nbuild: test\n    echo x:\ntest $a b=\"c: d\" e=(arch() + \"-f:g\") *h:\nrun +some:\n";
    let found = recipes(text).expect("no duplicate");
    let expected =
        [("_hidden", 0, 0), ("b", 0, 0), ("build", 0, 0), ("run", 1, usize::MAX), ("test", 1, usize::MAX)];
    let expected: BTreeMap<String, Arguments> = expected
        .into_iter()
        .map(|(name, least, most)| (name.to_owned(), Arguments { least, most }))
        .collect();
    assert_eq!(found, expected);
    assert!(recipes("a:\n    x\nb:\na *c:\n").is_err_and(|error| error.contains("recipe a ")));
}

#[test]
fn every_recipe_that_is_named_exists_once_and_takes_what_it_is_given() {
    let recipes = recipes(&text("justfile")).unwrap_or_else(|error| panic!("justfile: {error}"));
    let lines = just_lines();
    assert!(lines.len() > 8, "{lines:?}");
    let mut problems = Vec::new();
    for (cluster, said) in lines {
        // An option of `just` itself, and an ellipsis.
        let recipe = said.first().is_some_and(|name| name.starts_with(char::is_alphabetic));
        let Some((name, given)) = said.split_first().filter(|_| recipe) else { continue };
        match recipes.get(name) {
            None => problems.push(format!("{cluster}: there is no recipe {name}")),
            // In a sentence of a script's output more words follow: only what a document shows is counted.
            Some(arguments) if cluster.contains(".md:") => {
                if !(arguments.least..=arguments.most).contains(&given.len()) {
                    problems.push(format!("{cluster}: {name} does not take {given:?}"));
                }
            }
            Some(_) => {}
        }
    }
    none_of(&problems);
}

#[test]
fn just_reads_the_justfile_as_this_test_does() {
    let Some(said) =
        output(Command::new("just").args(["--summary", "--justfile"]).arg(top().join("justfile")))
    else {
        return skip("the justfile is not read by just, which is not installed");
    };
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let recipes = recipes(&text("justfile")).unwrap_or_else(|error| panic!("justfile: {error}"));
    let shown: Vec<&String> = recipes.keys().filter(|name| !name.starts_with('_')).collect();
    let said = String::from_utf8(said.stdout).expect("UTF-8");
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), shown);
    for name in shown {
        // Shows what would be run: every parameter has a value, every function exists.
        let tried = output(Command::new("just").current_dir(top()).args(["--dry-run", name]));
        let tried = tried.expect("just, which has just been there");
        assert!(tried.status.success(), "{name}: {}", String::from_utf8_lossy(&tried.stderr));
        let script = String::from_utf8(tried.stderr).expect("UTF-8");
        let read =
            output(Command::new("bash").args(["-n", "-c", &script])).expect("bash: the justfile's shell");
        assert!(read.status.success(), "{name}: {}", String::from_utf8_lossy(&read.stderr));
    }
}
