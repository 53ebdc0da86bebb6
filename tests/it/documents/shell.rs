//! The commands in a piece of shell script: as much of the shell as the documents use.

use std::{iter::Peekable, str::Chars};

/// One simple command.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Line {
    /// Variables that are set for it alone.
    pub(super) variables: Vec<String>,
    /// The program and its arguments, without quotes; of a substitution `$()` stays, and what is in it comes before.
    pub(super) words: Vec<String>,
    /// What it reads that stands behind it.
    pub(super) document: Option<String>,
}

/// Words that stand before a command and are none.
const KEYWORDS: [&str; 11] = ["!", "{", "}", "do", "done", "else", "fi", "if", "then", "until", "while"];

/// All commands, those of pipes, lists and substitutions included.
pub(super) fn commands(script: &str) -> Vec<Line> {
    let mut reader = Reader { rest: script.chars().peekable(), done: Vec::new(), documents: Vec::new() };
    reader.list(None);
    reader.done
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    done: Vec<Line>,
    /// Commands whose document begins behind the end of the line, and what ends it.
    documents: Vec<(usize, String)>,
}

impl Reader<'_> {
    /// Commands up to a closing parenthesis or the end.
    fn list(&mut self, end: Option<char>) {
        let mut line = Line::default();
        loop {
            match self.rest.peek().copied() {
                None => break,
                c if c == end => {
                    self.rest.next();
                    break;
                }
                Some('\n') => {
                    self.rest.next();
                    self.finish(&mut line);
                    self.read_documents();
                }
                Some('|' | '&' | ';' | '(' | ')') => {
                    self.rest.next();
                    self.finish(&mut line);
                }
                Some(' ' | '\t') => {
                    self.rest.next();
                }
                Some('#') => while self.rest.next_if(|c| *c != '\n').is_some() {},
                Some('\\') => {
                    self.rest.next();
                    if self.rest.next_if_eq(&'\n').is_none() {
                        let word = format!("\\{}", self.word());
                        line.words.push(word);
                    }
                }
                Some('<' | '>') => self.redirection(),
                Some(_) => {
                    let word = self.word();
                    let assigns = word.split_once('=').is_some_and(|(name, _)| {
                        !name.is_empty() && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
                    });
                    if line.words.is_empty() && assigns {
                        line.variables.push(word);
                    } else if !line.words.is_empty() || !KEYWORDS.contains(&word.as_str()) {
                        line.words.push(word);
                    }
                }
            }
        }
        self.finish(&mut line);
    }

    fn finish(&mut self, line: &mut Line) {
        // A loop's header holds no command.
        let is_header = matches!(line.words.first().map(String::as_str), Some("for" | "case"));
        let line = std::mem::take(line);
        if !line.words.is_empty() && !is_header {
            self.done.push(line);
        }
    }

    fn redirection(&mut self) {
        let mut operator = String::new();
        while let Some(c) = self.rest.next_if(|c| matches!(c, '<' | '>' | '&' | '-')) {
            operator.push(c);
        }
        while self.rest.next_if_eq(&' ').is_some() {}
        let target = self.word();
        if operator == "<<" {
            // The command that is being read is the next one to be done.
            self.documents.push((self.done.len(), target));
        }
    }

    fn read_documents(&mut self) {
        for (index, end) in std::mem::take(&mut self.documents) {
            let mut document = String::new();
            loop {
                let mut text = String::new();
                while let Some(c) = self.rest.next_if(|c| *c != '\n') {
                    text.push(c);
                }
                if self.rest.next().is_none() || text == end {
                    break;
                }
                document.push_str(&text);
                document.push('\n');
            }
            self.done[index].document = Some(document);
        }
    }

    /// One word, without its quotes.
    fn word(&mut self) -> String {
        let mut word = String::new();
        let mut quoted = false;
        while let Some(c) = self.rest.peek().copied() {
            match c {
                '\'' if !quoted => {
                    self.rest.next();
                    while let Some(c) = self.rest.next().filter(|c| *c != '\'') {
                        word.push(c);
                    }
                }
                '"' => {
                    self.rest.next();
                    quoted = !quoted;
                }
                '\\' => {
                    self.rest.next();
                    match self.rest.next() {
                        None | Some('\n') => {}
                        Some(c) => word.push(c),
                    }
                }
                '$' => {
                    self.rest.next();
                    word.push('$');
                    if self.rest.next_if_eq(&'(').is_some() {
                        self.list(Some(')'));
                        word.push_str("()");
                    }
                }
                ' ' | '\t' | '\n' | '|' | '&' | ';' | '(' | ')' | '<' | '>' if !quoted => break,
                c => {
                    self.rest.next();
                    word.push(c);
                }
            }
        }
        word
    }
}

#[test]
fn commands_are_found_wherever_they_stand() {
    let script = "A=1 B=\"x y\" one 'two three' --four \\\n  \"$(five \"six\" | seven)\" > out # eight\n\
                  nine -f - <<'EOF' && ten\nkind: Eleven\nEOF\nuntil ! twelve; do thirteen; done\n";
    let found = commands(script);
    let words: Vec<String> = found.iter().map(|line| line.words.join(",")).collect();
    let expected =
        ["five,six", "seven", "one,two three,--four,$()", "nine,-f,-", "ten", "twelve", "thirteen"];
    assert_eq!(words, expected);
    assert_eq!(found[2].variables, ["A=1", "B=x y"]);
    assert_eq!(found[3].document.as_deref(), Some("kind: Eleven\n"));
}
