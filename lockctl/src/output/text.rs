// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Words and numbers as people read them, with nothing in them that breaks a line or a terminal.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use ratatui::text::Span;

/// The text with every character escaped that would break the line or the terminal it is shown on.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_line_or_direction_mark(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A name of a file or a word of a command line, escaped as well where it is no UTF-8.
pub fn shown(name: impl AsRef<OsStr>) -> String {
    let mut text = String::new();
    for chunk in name.as_ref().as_bytes().utf8_chunks() {
        text.push_str(&escaped(chunk.valid()));
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// Line separators and the marks that reorder text are no control characters by Unicode, yet they break a line.
fn is_line_or_direction_mark(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A time in at most three parts of a word: 250ms, 3.2s, 4m05s, 2h10m, 41d03h.
pub fn duration(nanoseconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let time = Duration::from_nanos(nanoseconds);
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{}ms", time.as_millis()),
        1..MINUTE => format!("{seconds}.{}s", time.subsec_millis() / 100),
        MINUTE..HOUR => format!("{}m{:02}s", seconds / MINUTE, seconds % MINUTE),
        HOUR..DAY => format!("{}h{:02}m", seconds / HOUR, seconds % HOUR / MINUTE),
        _ => format!("{}d{:02}h", seconds / DAY, seconds % DAY / HOUR),
    }
}

/// "1 process", "2 processes".
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// How many columns of a terminal the text takes: ideographs take two, combining marks none.
pub fn width(text: &str) -> usize {
    // Nearly everything, and tables may have millions of cells.
    if text.is_ascii() { text.len() } else { Span::raw(text).width() }
}

/// Blanks for what the text leaves of so many columns.
pub fn padding(text: &str, columns: usize) -> String {
    " ".repeat(columns.saturating_sub(width(text)))
}

/// The text in so many columns, the end cut off where it has more.
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut left = columns.saturating_sub(1);
    for character in text.chars() {
        let taken = width(character.encode_utf8(&mut [0; 4]));
        if taken > left {
            break;
        }
        left -= taken;
        short.push(character);
    }
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_cannot_break_the_line() {
        assert_eq!(escaped("a\nb\x1b[31m\u{2028}z"), "a\\nb\\u{1b}[31m\\u{2028}z");
        // The Arabic letter mark reorders as well, though it lies apart from the others.
        assert_eq!(escaped("7\u{61c}z"), "7\\u{61c}z");
    }

    #[test]
    fn what_is_no_text_is_shown_by_its_bytes() {
        assert_eq!(shown(OsStr::from_bytes(b"/a\xff\n/\xc3\xa9\xc3")), "/a\\xff\\n/\u{e9}\\xc3");
        // Escaping what is escaped changes nothing.
        assert_eq!(escaped("/a\\xff\\n"), "/a\\xff\\n");
    }

    #[test]
    fn times_are_short_at_every_length() {
        let shown = [0, 250, 3_290, 245_000, 7_800_000, 3_553_200_000].map(|ms: u64| duration(ms * 1_000_000));
        assert_eq!(shown, ["0ms", "250ms", "3.2s", "4m05s", "2h10m", "41d03h"]);
    }

    #[test]
    fn what_is_too_long_says_so() {
        assert_eq!([cut("podman", 6), cut("podman", 5), cut("podman", 0)], ["podman", "podm…", "…"]);
    }

    #[test]
    fn ideographs_take_two_columns() {
        assert_eq!(["ab", "世界", "e\u{301}"].map(width), [2, 4, 1]);
        assert_eq!([cut("世界世界", 8), cut("世界世界", 7), cut("世界世界", 6)], ["世界世界", "世界世…", "世界…"]);
        assert_eq!(padding("世", 4), "  ");
    }
}
