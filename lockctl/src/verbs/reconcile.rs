// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `lockctl reconcile`: frees ids that are allocated and on no list of those in use, if they were allocated before the
//! list was made as well.

/// What was allocated at some time, in a file.
mod record;

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::cli::Reconcile;
use crate::exit::{Failure, Outcome, sysexits};
use crate::output::text::{count, shown};
use crate::storage::Storage;
use crate::survey::{Row, Survey, Which, holding};
use record::Record;

pub fn reconcile(arguments: &Reconcile) -> Outcome {
    let storage = Storage::named(&arguments.storage.storage)?;
    let opened = if arguments.free { storage.open()? } else { storage.look()? };
    let manager = opened.manager();
    if let Some(file) = &arguments.record {
        let survey = Survey::take(&storage, &opened, Which::InUse)?;
        let record = Record::of(&storage, &survey)?;
        std::fs::write(file, record.to_string()).map_err(|error| Failure::system(shown(file), &error))?;
        let locks = count(record.locks.len(), "allocated lock", "allocated locks");
        writeln!(io::stdout().lock(), "recorded {locks} in {}; now make the list of those in use", shown(file))?;
        return Ok(0);
    }
    let before = arguments.before.as_deref().map(|file| Record::read(file, &storage)).transpose()?;
    let mut in_use = BTreeSet::new();
    for file in &arguments.in_use {
        in_use.extend(read_list(file)?);
    }
    // After the list was read: the second look.
    let survey = Survey::take(&storage, &opened, Which::InUse)?;
    let mut out = io::stdout().lock();
    let mut leaked = 0;
    for row in survey.rows.iter().filter(|row| row.lock.allocated && !in_use.contains(&row.lock.id)) {
        let id = row.lock.id;
        match keep(row, before.as_ref()) {
            Some(why) => writeln!(out, "lock {id}: on no list, but kept: {why}")?,
            None if arguments.free => {
                manager.free_lock(id)?;
                leaked += 1;
                writeln!(out, "lock {id}: freed")?;
            }
            None => {
                leaked += 1;
                writeln!(out, "lock {id}: would be freed")?;
            }
        }
    }
    // A set: both sides may be as many as a segment has locks, and their product is hours.
    let allocated: BTreeSet<u32> = survey.rows.iter().filter(|row| row.lock.allocated).map(|row| row.lock.id).collect();
    let unallocated: Vec<String> = in_use.difference(&allocated).map(u32::to_string).collect();
    if !unallocated.is_empty() {
        writeln!(out, "on a list, but not allocated: {}; others may be given these ids", unallocated.join(", "))?;
    }
    let locks = count(leaked, "lock", "locks");
    match (arguments.free, before) {
        (true, _) => writeln!(out, "{locks} freed")?,
        (false, Some(_)) => writeln!(out, "{locks} would be freed; give --free to do it")?,
        (false, None) => writeln!(
            out,
            "{locks} on no list; to free them, first --record what is allocated, then make the list anew, then give both"
        )?,
    }
    super::list::tell_beside(&survey);
    Ok(0)
}

/// Why a lock that is on no list is not to be freed.
fn keep(row: &Row, before: Option<&Record>) -> Option<String> {
    if row.lock.held {
        return Some(format!("it is {}", holding::sentence(&row.holders)));
    }
    if row.waiters() > 0 {
        return Some("it is waited for".to_owned());
    }
    let before = before?;
    match before.locks.get(&row.lock.id) {
        None => Some("it was not allocated before the list was made".to_owned()),
        Some(&acquisitions) if acquisitions != row.lock.acquisitions => {
            Some("it was acquired since the record was made".to_owned())
        }
        Some(_) => None,
    }
}

/// Ids with white space between them; from # on a line is a remark.
fn read_list(file: &Path) -> Result<Vec<u32>, Failure> {
    let failed = |error| Failure::system(shown(file), &error);
    let text = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(failed)?;
        text
    } else {
        std::fs::read_to_string(file).map_err(failed)?
    };
    parse_list(&text).map_err(|(line, word)| {
        Failure::new(
            sysexits::DATAERR,
            format!(
                "{}, line {line}: \"{}\" is not an id; nothing was freed. Give numbers with white space between them",
                shown(file),
                crate::output::text::escaped(word)
            ),
        )
    })
}

fn parse_list(text: &str) -> Result<Vec<u32>, (usize, &str)> {
    let mut ids = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        for word in line.split_ascii_whitespace() {
            ids.push(word.parse().map_err(|_| (index + 1, word))?);
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_numbers_and_remarks_and_nothing_else() {
        assert_eq!(parse_list("1 2\n# 3\n 4 # five\n\n"), Ok(vec![1, 2, 4]));
        assert_eq!(parse_list("1\n2 x"), Err((2, "x")));
        assert_eq!(parse_list("1,2"), Err((1, "1,2")));
        assert_eq!(parse_list("-1"), Err((1, "-1")));
    }
}
