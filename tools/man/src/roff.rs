// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text as man(7) wants it: what would be a command is escaped, and names stand in the types that readers know.

use crate::comment::sentences;

/// What a page's text refers to.
pub struct Names<'a> {
    /// The functions of the header.
    pub functions: &'a [&'a str],
    /// Those that this page describes.
    pub here: &'a [&'a str],
    /// The parameters of those.
    pub parameters: &'a [&'a str],
}

pub fn bold(text: &str) -> String {
    format!("\\fB{text}\\fP")
}

pub fn italic(text: &str) -> String {
    format!("\\fI{text}\\fP")
}

/// Characters as they are, but for those that roff reads otherwise.
pub fn escape(text: &str) -> String {
    escape_between("", text, "")
}

/// Escapes what stands between two others. A hyphen stays one within a word; elsewhere it is a sign.
fn escape_between(before: &str, text: &str, after: &str) -> String {
    let mut escaped = String::new();
    let mut last = before.chars().next_back();
    for (at, character) in text.char_indices() {
        let mut next = text[at + character.len_utf8()..].chars().chain(after.chars());
        match character {
            '\\' => escaped.push_str("\\e"),
            '^' => escaped.push_str("\\(ha"),
            '~' => escaped.push_str("\\(ti"),
            '`' => escaped.push_str("\\(ga"),
            '-' if last.is_some_and(char::is_alphanumeric) && next.next().is_some_and(char::is_alphanumeric) => {
                escaped.push('-');
            }
            '-' => escaped.push_str("\\-"),
            character if character.is_ascii() => escaped.push(character),
            character => escaped.push_str(&format!("\\[u{:04X}]", u32::from(character))),
        }
        last = Some(character);
    }
    escaped
}

/// Running text, a line for each sentence.
pub fn text(text: &str, names: &Names<'_>) -> String {
    let mut lines = String::new();
    for sentence in sentences(text) {
        let line = styled(sentence, names);
        // A command begins with one of these.
        if line.starts_with(['.', '\'']) {
            lines.push_str("\\&");
        }
        lines.push_str(&line);
        lines.push('\n');
    }
    lines
}

/// What a tag means, which begins with a capital unless it begins with a name.
pub fn meaning(meaning: &str, names: &Names<'_>) -> String {
    let word = meaning.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or("");
    let is_word = meaning[word.len()..].starts_with([' ', ',', '.', ';']) && !names.parameters.contains(&word);
    match meaning.chars().next().filter(|_| is_word) {
        Some(first) => text(&format!("{}{}", first.to_ascii_uppercase(), &meaning[first.len_utf8()..]), names),
        None => text(meaning, names),
    }
}

/// A text's names in their types.
pub fn styled(text: &str, names: &Names<'_>) -> String {
    let mut styled = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let length = rest.find(|c: char| !is_of_a_name(c)).unwrap_or(rest.len());
        if length > 0 {
            let (word, after) = rest.split_at(length);
            rest = name(word, after, names, &mut styled);
            continue;
        }
        if let Some((quoted, after)) = rest.strip_prefix('`').and_then(|inside| inside.split_once('`')) {
            if names.functions.contains(&quoted) {
                rest = name(quoted, after, names, &mut styled);
            } else {
                styled.push_str(&italic(&escape(quoted)));
                rest = after;
            }
            continue;
        }
        // Up to the next name, but at least this character.
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let end = rest[first..].find(|c: char| is_of_a_name(c) || c == '`').map_or(rest.len(), |at| at + first);
        let (other, after) = rest.split_at(end);
        // A sign before an error's code belongs to it.
        match other.strip_suffix('-').filter(|_| is_code(after)) {
            Some(other) => {
                let length = after.find(|c: char| !is_of_a_name(c)).unwrap_or(after.len());
                styled.push_str(&escape(other));
                styled.push_str(&bold(&format!("\\-{}", &after[..length])));
                rest = &after[length..];
            }
            None => {
                styled.push_str(&escape_between(&styled, other, after));
                rest = after;
            }
        }
    }
    styled
}

fn is_of_a_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn is_code(text: &str) -> bool {
    text.starts_with('E') && text[1..].starts_with(|c: char| c.is_ascii_uppercase())
}

/// Writes a word; returns what follows it and was not written with it.
fn name<'a>(word: &str, after: &'a str, names: &Names<'_>, styled: &mut String) -> &'a str {
    // No hyphen is put into a name.
    let whole = format!("\\%{word}");
    if names.functions.contains(&word) {
        let section = if names.here.contains(&word) { "()" } else { "(3)" };
        styled.push_str(&format!("{}{section}", bold(&whole)));
        return after.strip_prefix("()").unwrap_or(after);
    }
    if is_a_page(after) || word.starts_with("LOCK_MANAGER_") {
        styled.push_str(&bold(&whole));
    } else if word.starts_with("lock_manager") && word.ends_with("_t")
        || word.contains('_') && names.parameters.contains(&word)
    {
        styled.push_str(&italic(&whole));
    } else {
        styled.push_str(word);
    }
    after
}

/// Whether a section follows, as in lslocks(8).
fn is_a_page(after: &str) -> bool {
    let mut characters = after.chars();
    characters.next() == Some('(')
        && characters.next().is_some_and(|section| section.is_ascii_digit())
        && characters.next() == Some(')')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_set_and_nothing_is_a_command() {
        let names = Names {
            functions: &["lock_manager_lock", "lock_manager_close"],
            here: &["lock_manager_lock"],
            parameters: &["timeout_ns", "id"],
        };
        let cases = [
            ("as lock_manager_lock.", "as \\fB\\%lock_manager_lock\\fP().\n"),
            ("until lock_manager_close()", "until \\fB\\%lock_manager_close\\fP(3)\n"),
            ("in-memory, info->size", "in-memory, info\\->size\n"),
            ("is -EINVAL where", "is \\fB\\-EINVAL\\fP where\n"),
            ("timeout_ns of an id", "\\fI\\%timeout_ns\\fP of an id\n"),
            ("see lslocks(8).", "see \\fB\\%lslocks\\fP(8).\n"),
            (".lock_manager is\\it", "\\&.lock_manager is\\eit\n"),
            ("One. Two of `ids`.", "One.\nTwo of \\fIids\\fP.\n"),
            ("see `lock_manager_lock`", "see \\fB\\%lock_manager_lock\\fP()\n"),
            ("LOCK_MANAGER_LAYOUT_\u{2026}", "\\fB\\%LOCK_MANAGER_LAYOUT_\\fP\\[u2026]\n"),
        ];
        for (given, expected) in cases {
            assert_eq!(text(given, &names), expected);
        }
        assert_eq!(meaning("its end. none", &names), "Its end. none\n");
        assert_eq!(meaning("id is wrong", &names), "id is wrong\n");
        assert_eq!(meaning("id->size is wrong", &names), "id\\->size is wrong\n");
    }
}
