// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which pages there are: one for each function or family, the library's own, and a reference for every other name.

use std::collections::{BTreeMap, BTreeSet};

use crate::comment::Comment;
use crate::families::{FAMILIES, RELATED};
use crate::header::Header;
use crate::overview;
use crate::page::Page;

/// The library's own page.
pub const OVERVIEW: &str = "lock_manager";
const LAST_ERROR: &str = "lock_manager_last_error";

/// All pages, by the names of their files.
pub fn all(header: &Header) -> Result<BTreeMap<String, String>, String> {
    let comments = header.functions.iter().map(Comment::of).collect::<Result<Vec<_>, _>>()?;
    let pages = group(header, &comments)?;
    let mut files = BTreeMap::new();
    let mut put = |name: &str, text: String| files.insert(format!("{name}.3"), text);
    put(OVERVIEW, overview::write(header, &pages));
    for page in &pages {
        put(page.name(), page.write(header, &see_also(page, &pages, header)));
        let structs = page.structs.iter().map(|kind| kind.name.as_str());
        for name in page.function_names().into_iter().skip(1).chain(structs) {
            put(name, reference(page.name()));
        }
    }
    for opaque in header.types.iter().filter(|kind| kind.fields.is_empty()) {
        put(&opaque.name, reference(OVERVIEW));
    }
    Ok(files)
}

/// A file that stands for a page.
fn reference(page: &str) -> String {
    format!(".so man3/{page}.3\n")
}

fn group<'a>(header: &'a Header, comments: &'a [Comment]) -> Result<Vec<Page<'a>>, String> {
    let find = |name: &str| {
        let at = header.functions.iter().position(|function| function.name == name);
        at.map(|at| (&header.functions[at], &comments[at]))
            .ok_or_else(|| format!("{name} is in families.rs, but not here"))
    };
    let mut pages = vec![];
    for (function, comment) in header.functions.iter().zip(comments) {
        let family = FAMILIES.iter().find(|family| family.functions.contains(&function.name.as_str()));
        let (summary, functions) = match family {
            None => (comment.summary(), vec![(function, comment)]),
            Some(family) if family.functions[0] == function.name => {
                let functions = family.functions.iter().map(|name| find(name)).collect::<Result<Vec<_>, _>>()?;
                (family.summary.to_owned(), functions)
            }
            Some(family) => {
                find(family.functions[0])?;
                continue;
            }
        };
        pages.push(Page { summary, functions, structs: vec![] });
    }
    for kind in header.types.iter().filter(|kind| !kind.fields.is_empty()) {
        let taking = |page: &&mut Page<'_>| {
            let mut parameters = page.functions.iter().flat_map(|(function, _)| &function.parameters);
            parameters.any(|parameter| parameter.kind.split(' ').any(|word| word == kind.name))
        };
        let page = pages.iter_mut().find(taking).ok_or_else(|| format!("no function takes a {}", kind.name))?;
        page.structs.push(kind);
    }
    Ok(pages)
}

/// The pages that this one names, and those that name it.
fn see_also<'a>(page: &Page<'a>, pages: &'a [Page<'a>], header: &Header) -> Vec<&'a str> {
    let mut others = BTreeSet::from([OVERVIEW]);
    if header.functions.iter().any(|function| function.name == LAST_ERROR) {
        others.insert(LAST_ERROR);
    }
    let belong = |other: &&Page<'_>| {
        let pairs = [(page.name(), other.name()), (other.name(), page.name())];
        names(page, other) || names(other, page) || pairs.iter().any(|pair| RELATED.contains(pair))
    };
    others.extend(pages.iter().filter(belong).map(Page::name));
    others.remove(page.name());
    others.into_iter().collect()
}

/// Whether a comment of `page` names a function of `other`.
fn names(page: &Page<'_>, other: &Page<'_>) -> bool {
    let words = page.functions.iter().flat_map(|(function, _)| &function.comment);
    let mut words = words.flat_map(|line| line.split(|c: char| !(c.is_alphanumeric() || c == '_')));
    words.any(|word| other.functions.iter().any(|(function, _)| function.name == word))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing helper is a failing test")]
mod tests {
    use super::*;

    const HEADER: &str = include_str!("../../../include/lock_manager.h");

    #[test]
    fn each_name_of_the_header_has_a_page_or_a_reference_to_one() {
        let header = Header::parse(HEADER).unwrap();
        let pages = all(&header).unwrap();
        let functions = header.functions.iter().map(|function| &function.name);
        let names: BTreeSet<String> =
            functions.chain(header.types.iter().map(|kind| &kind.name)).map(|name| format!("{name}.3")).collect();
        let files: BTreeSet<String> = pages.keys().filter(|name| *name != "lock_manager.3").cloned().collect();
        assert_eq!(files, names);
        assert!(names.len() > 40, "the header was not understood: {names:?}");
        for text in pages.values() {
            let see_also = text.lines().filter_map(|line| line.strip_prefix(".BR lock_manager"));
            for name in see_also.filter_map(|line| line.split_once(' ')).map(|(name, _)| name) {
                assert!(pages.contains_key(&format!("lock_manager{name}.3")), "{name}: {text}");
            }
            if let Some(page) = text.strip_prefix(".so man3/") {
                assert!(pages[page.trim_end()].contains(".SH NAME\n"), "{page}");
            }
        }
    }

    #[test]
    fn what_belongs_together_are_pages() {
        let pages = all(&Header::parse(HEADER).unwrap()).unwrap();
        for name in RELATED.iter().flat_map(|&(one, other)| [one, other]) {
            assert!(pages[&format!("{name}.3")].contains(".SH NAME\n"), "{name}");
        }
    }

    #[test]
    fn what_families_name_is_in_the_header() {
        let text = HEADER.replace("int32_t lock_manager_try_lock(", "int32_t lock_manager_other(");
        let sentence = all(&Header::parse(&text).unwrap()).err().unwrap();
        assert_eq!(sentence, "lock_manager_try_lock is in families.rs, but not here");
    }
}
