//! A page of documentation, taken apart: its code blocks, the code within its sentences, its headings and its links.

use std::collections::BTreeSet;

/// A page.
pub(super) struct Page {
    /// From the top of the repository.
    pub(super) path: String,
    pub(super) blocks: Vec<Block>,
    paragraphs: Vec<(usize, String)>,
    headings: Vec<String>,
}

/// A fenced block of code.
pub(super) struct Block {
    pub(super) language: String,
    /// The page and the block's first line, for messages.
    pub(super) cluster: String,
    pub(super) text: String,
}

impl Page {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let mut page =
            Self { path: path.to_owned(), blocks: Vec::new(), paragraphs: Vec::new(), headings: Vec::new() };
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let mut paragraph: Option<(usize, String)> = None;
        while let Some((number, line)) = lines.next() {
            let content = line.trim_start();
            if let Some(language) = content.strip_prefix("```") {
                page.paragraphs.extend(paragraph.take());
                let indent = line.len() - content.len();
                // In a list a block stands as far in as the item's text.
                let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```");
                let inside: Vec<&str> = inside.map(|line| line.get(indent..).unwrap_or_default()).collect();
                page.blocks.push(Block {
                    language: language.to_owned(),
                    cluster: format!("{path}:{}", number + 1),
                    text: inside.join("\n") + "\n",
                });
            } else if content.is_empty() {
                page.paragraphs.extend(paragraph.take());
            } else {
                if let Some(heading) = line.strip_prefix('#') {
                    page.headings.push(heading.trim_start_matches('#').trim().to_owned());
                }
                let (_, joined) = paragraph.get_or_insert_with(|| (number, String::new()));
                joined.push_str(content);
                joined.push(' ');
            }
        }
        page.paragraphs.extend(paragraph);
        page
    }

    /// The code within sentences, each with its place.
    pub(super) fn spans(&self) -> impl Iterator<Item = (String, &str)> {
        self.paragraphs.iter().flat_map(move |(line, text)| {
            text.split('`').skip(1).step_by(2).map(move |code| (format!("{}:{line}", self.path), code))
        })
    }

    /// Where links lead, each with its place.
    pub(super) fn links(&self) -> impl Iterator<Item = (String, &str)> {
        self.paragraphs.iter().flat_map(move |(line, text)| {
            let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            targets.map(move |target| (format!("{}:{line}", self.path), target))
        })
    }

    /// What a link to a heading of this page can name.
    pub(super) fn anchors(&self) -> BTreeSet<String> {
        self.headings.iter().map(|heading| anchor(heading)).collect()
    }
}

/// What a link to a heading names, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

/// What stands under a heading, up to the next one; nothing if there is no such heading. For pages without a `#` at the
/// beginning of a line of code.
pub(super) fn section<'a>(text: &'a str, of: &str) -> Option<&'a str> {
    let mut sections = text.split("\n#").map(|section| section.split_once('\n').unwrap_or((section, "")));
    let found = sections.find(|(heading, _)| anchor(heading.trim_start_matches('#').trim()) == of);
    found.map(|(_, text)| text)
}

#[test]
fn a_page_is_taken_apart_as_a_reader_sees_it() {
    let text = "# One\n\nSee [two\n(yes)](#two-and-a-half) or `a\nb`.\n\n1. Item\n\n   ```sh\n   if x\n     y\n   ```\n\
                \n## Two, and a `half`!\n";
    let page = Page::new("p.md", text);
    assert_eq!(page.spans().collect::<Vec<_>>(), [("p.md:3".into(), "a b"), ("p.md:14".into(), "half")]);
    assert_eq!(page.links().collect::<Vec<_>>(), [("p.md:3".into(), "#two-and-a-half")]);
    assert_eq!(page.anchors().into_iter().collect::<Vec<_>>(), ["one", "two-and-a-half"]);
    let [block] = page.blocks.as_slice() else { panic!("one block") };
    assert_eq!((block.language.as_str(), block.cluster.as_str()), ("sh", "p.md:10"));
    assert_eq!(block.text, "if x\n  y\n");
}
