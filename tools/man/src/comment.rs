// SPDX-License-Identifier: MIT OR Apache-2.0
//! A function's comment, taken apart into the sections of a page. Its form is described in main.rs.

use crate::header::{Function, paragraphs};

/// What a comment says, by section.
#[derive(Default)]
pub struct Comment {
    pub description: Vec<String>,
    /// Names and texts.
    pub parameters: Vec<Item>,
    /// What a success means.
    pub successes: Vec<Item>,
    pub errors: Errors,
}

/// A tag and what it means.
pub struct Item {
    pub tag: String,
    pub text: String,
}

/// What stands under ERRORS.
#[derive(Default)]
pub struct Errors {
    /// What comes before the first.
    pub before: String,
    /// The codes, without their sign, and when they come.
    pub entries: Vec<Item>,
    /// "Otherwise as …", "Fails as …".
    pub references: Vec<String>,
}

impl Errors {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.references.is_empty()
    }

    fn add(&mut self, sentence: &str) {
        if let Some((codes, when)) = codes(sentence) {
            self.entries.push(Item { tag: codes.replace('-', ""), text: when.to_owned() });
        } else if refers(sentence) {
            self.references.push(sentence.to_owned());
        } else {
            let text = self.entries.last_mut().map_or(&mut self.before, |entry| &mut entry.text);
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(sentence);
        }
    }
}

/// The errors that a text names.
pub fn errors(text: &str) -> Errors {
    let mut errors = Errors::default();
    sentences(text).into_iter().for_each(|sentence| errors.add(sentence));
    errors
}

/// "-EAGAIN, -ENOMEM: when" as its two halves. A failure may also have a name of the library's own, "LOCK_MANAGER_LOST".
fn codes(sentence: &str) -> Option<(&str, &str)> {
    let (codes, when) = sentence.split_once(": ")?;
    let is_code = |code: &str| {
        let name = code.strip_prefix("-E").or_else(|| code.strip_prefix("LOCK_MANAGER_"));
        name.is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
    };
    codes.split(", ").all(is_code).then_some((codes, when))
}

fn refers(sentence: &str) -> bool {
    ["Otherwise as ", "Fails as "].iter().any(|start| sentence.starts_with(start))
}

/// A text in sentences, each with its full stop. What follows a full stop and a blank in small letters goes on.
pub fn sentences(text: &str) -> Vec<&str> {
    let mut sentences = vec![];
    let mut start = 0;
    for (at, stop) in text.match_indices(". ") {
        let next = at + stop.len();
        if !text[next..].starts_with(|c: char| c.is_lowercase()) {
            sentences.push(&text[start..=at]);
            start = next;
        }
    }
    sentences.push(&text[start..]);
    sentences
}

/// "0 or LOCK_MANAGER_X: …", "LOCK_MANAGER_X: …" as its two halves.
fn success(text: &str) -> Option<Item> {
    let (tag, meaning) = text.split_once(": ")?;
    let constant = tag.strip_prefix("0 or ").unwrap_or(tag);
    let is_constant = constant.starts_with("LOCK_MANAGER_") && !constant.contains(' ');
    is_constant.then(|| Item { tag: tag.to_owned(), text: meaning.to_owned() })
}

impl Comment {
    pub fn of(function: &Function) -> Result<Self, String> {
        let mut comment = Self::default();
        for paragraph in paragraphs(&function.comment) {
            comment.take(paragraph, function)?;
        }
        if comment.description.is_empty() {
            return Err(format!("{}: its comment does not begin with what it does", function.name));
        }
        if function.returns_code() == comment.errors.is_empty() {
            let wrong =
                if function.returns_code() { "names no errors: -ECODE: when" } else { "cannot fail, and names errors" };
            return Err(format!("{} {wrong}", function.name));
        }
        Ok(comment)
    }

    fn take(&mut self, paragraph: &[String], function: &Function) -> Result<(), String> {
        let text = paragraph.join(" ");
        let parameter = |line: &String| -> Option<Item> {
            let (name, text) = line.split_once(": ")?;
            let known = function.parameters.iter().any(|parameter| parameter.name == name);
            known.then(|| Item { tag: name.to_owned(), text: text.to_owned() })
        };
        if parameter(&paragraph[0]).is_some() {
            for line in paragraph {
                match (parameter(line), self.parameters.last_mut()) {
                    (Some(item), _) => self.parameters.push(item),
                    (None, Some(last)) => last.text = format!("{} {line}", last.text),
                    (None, None) => {}
                }
            }
        } else if let Some(item) = success(&text) {
            self.successes.push(item);
        } else if codes(&text).is_some() || refers(&text) {
            sentences(&text).into_iter().for_each(|sentence| self.errors.add(sentence));
        } else if let Some(sentence) = sentences(&text).into_iter().find(|sentence| codes(sentence).is_some()) {
            return Err(format!("{}: `{sentence}` begins no paragraph of errors", function.name));
        } else {
            self.description.push(text);
        }
        Ok(())
    }

    /// The line under NAME: the first main clause, without a capital.
    pub fn summary(&self) -> String {
        let text = &self.description[0];
        let end = [". ", ": ", "; "].iter().filter_map(|mark| text.find(mark)).min().unwrap_or(text.len());
        let mut letters = text[..end].trim_end_matches('.').chars();
        letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing helper is a failing test")]
mod tests {
    use super::*;
    use crate::header::Header;

    fn comment_of(lines: &[&str], declaration: &str) -> Result<Comment, String> {
        let text = lines.iter().map(|line| format!(" * {line}\n")).collect::<String>();
        let header = format!(
            "/*\n * lock_manager: locks.\n */\n/** The version. */\n#define LOCK_MANAGER_VERSION \"1\"\n/**\n{text} */\n{declaration};\n"
        );
        Comment::of(&Header::parse(&header, None)?.functions[0])
    }

    const LOCK: &str = "int32_t lock_manager_lock(lock_manager_t *manager,\n    uint32_t id)";

    #[test]
    fn each_part_of_a_comment_finds_its_section() {
        let lines = [
            "Waits for a lock: until it is free. In 10 ms.",
            "",
            "id: which one,",
            "of all.",
            "manager: whose.",
            "",
            "0 or LOCK_MANAGER_OWNER_DIED: it is held.",
            "",
            "-EDEADLK: this thread",
            "holds it. Nothing has changed then. -EAGAIN, -ENOMEM: no room. Otherwise as",
            "lock_manager_unlock.",
        ];
        let comment = comment_of(&lines, LOCK).unwrap();
        assert_eq!(comment.summary(), "waits for a lock");
        assert_eq!(comment.description, ["Waits for a lock: until it is free. In 10 ms."]);
        let pairs = |items: &[Item]| items.iter().map(|it| format!("{} = {}", it.tag, it.text)).collect::<Vec<_>>();
        assert_eq!(pairs(&comment.parameters), ["id = which one, of all.", "manager = whose."]);
        assert_eq!(pairs(&comment.successes), ["0 or LOCK_MANAGER_OWNER_DIED = it is held."]);
        let errors = ["EDEADLK = this thread holds it. Nothing has changed then.", "EAGAIN, ENOMEM = no room."];
        assert_eq!(pairs(&comment.errors.entries), errors);
        assert_eq!(comment.errors.references, ["Otherwise as lock_manager_unlock."]);
    }

    #[test]
    fn a_comment_without_the_form_is_refused_by_name() {
        let refused = |lines: &[&str], declaration| comment_of(lines, declaration).err().unwrap();
        let sentence = refused(&["Waits. -EBUSY: it is held.", "", "-EIO: a fault."], LOCK);
        assert_eq!(sentence, "lock_manager_lock: `-EBUSY: it is held.` begins no paragraph of errors");
        assert_eq!(refused(&["Waits."], LOCK), "lock_manager_lock names no errors: -ECODE: when");
        assert_eq!(
            refused(&["-EIO: a fault."], LOCK),
            "lock_manager_lock: its comment does not begin with what it does"
        );
        let name = "const char *lock_manager_version(void)";
        let sentence = refused(&["Says.", "", "-EIO: a fault."], name);
        assert_eq!(sentence, "lock_manager_version cannot fail, and names errors");
    }
}
