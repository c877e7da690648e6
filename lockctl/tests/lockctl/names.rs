// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of files that are no text, or break lines and terminals: whatever lockctl says of them, it says on a line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use lock_manager::{FileManager, Layout, SegmentOptions, ShmManager};

use crate::stage::{Place, command};

/// A line break, the start of a colour, and a byte that is no UTF-8.
const ODD: &[u8] = b"odd\nname\x1b[31m\xff";

/// How it is shown.
const SHOWN: &str = r"odd\nname\u{1b}[31m\xff";

fn odd(place: &Place, ending: &str) -> PathBuf {
    let mut name = place.beside("").into_os_string().into_vec();
    name.extend_from_slice(ODD);
    name.extend_from_slice(ending.as_bytes());
    OsString::from_vec(name).into()
}

/// What lockctl says, of which every byte is fit for a terminal.
#[track_caller]
fn said(words: &[&OsStr]) -> String {
    let output = command(words).output().unwrap();
    let bytes = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(bytes).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    let is_fit = |character: char| character == '\n' || !character.is_control();
    assert!(text.chars().all(is_fit), "{words:?}: {text:?}");
    assert!(!text.contains('\u{fffd}'), "{words:?}: {text:?}");
    text
}

#[test]
fn no_message_breaks_a_line_or_a_terminal_by_a_name() {
    let place = Place::unused();
    let (segment, directory) = (odd(&place, "segment"), odd(&place, "directory"));
    let (missing, list) = (odd(&place, "missing"), odd(&place, "list"));
    std::fs::write(&list, format!("no{}id", '\u{1b}')).unwrap();
    ShmManager::create(&segment, 32, &SegmentOptions::default().layout(Layout::Libpod)).unwrap();
    FileManager::create(&directory).unwrap();
    let strange = odd(&place, "strange");
    std::fs::create_dir(&strange).unwrap();
    std::fs::write(strange.join("something else"), b"").unwrap();
    let relative = OsStr::from_bytes(ODD);
    for storage in [&segment, &directory, &missing, &list, &strange] {
        let storage = storage.as_os_str();
        for verb in ["list", "graph", "graph --dot", "check", "repair", "allocate", "free-all"] {
            let mut words: Vec<&OsStr> = verb.split(' ').map(OsStr::new).collect();
            words.push(storage);
            said(&words);
        }
        for numbers in [["repair", "7"], ["free", "7"], ["grow", "64"], ["create", "32"]] {
            said(&[numbers[0].as_ref(), storage, numbers[1].as_ref()]);
        }
        said(&["watch".as_ref(), "-c".as_ref(), "1".as_ref(), storage]);
        said(&["create".as_ref(), "--directory".as_ref(), storage]);
        for file in [&list, &missing] {
            let file = file.as_os_str();
            said(&["reconcile".as_ref(), storage, "--in-use".as_ref(), file]);
            said(&["reconcile".as_ref(), storage, "--in-use".as_ref(), list.as_ref(), "--before".as_ref(), file]);
        }
        said(&["reconcile".as_ref(), storage, "--record".as_ref(), strange.as_os_str()]);
        said(&["generate".as_ref(), "man".as_ref(), list.join("below").as_os_str()]);
        said(&["run".as_ref(), "--verbose".as_ref(), storage, "0".as_ref(), "--".as_ref(), missing.as_ref()]);
    }
    said(&["list".as_ref(), relative]);
    said(&["remove".as_ref(), missing.as_ref()]);
    // What the parser of the command line repeats.
    said(&["list".as_ref(), "-p".as_ref(), "\u{1b}[31m".as_ref(), "/locks".as_ref()]);
    said(&["\u{1b}[31m\n".as_ref()]);
    // And it is the name that is shown.
    let text = said(&["list".as_ref(), missing.as_ref()]);
    assert!(text.contains(&format!("{SHOWN}missing: does not exist")), "{text}");
    let new = odd(&place, "new");
    let text = said(&["create".as_ref(), "--directory".as_ref(), new.as_ref()]);
    assert!(text.ends_with(&format!("{SHOWN}new, which has no number of locks\n")), "{text}");
    let record = odd(&place, "record");
    let text = said(&["reconcile".as_ref(), segment.as_ref(), "--record".as_ref(), record.as_ref()]);
    assert!(text.contains(&format!("{SHOWN}record; now make the list")), "{text}");
}
