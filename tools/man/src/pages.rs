// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which pages there are: one for each function or family, the library's own, and a reference for every other name.

use std::collections::{BTreeMap, BTreeSet};

use crate::comment::Comment;
use crate::families::{FAMILIES, RELATED};
use crate::header::{Header, Type};
use crate::overview;
use crate::page::Page;

/// The core's own page.
const CORE: &str = "lock_manager";
const LAST_ERROR: &str = "lock_manager_last_error";

/// All pages, by the names of their files.
pub fn all(header: &Header) -> Result<BTreeMap<String, String>, String> {
    let comments = header.functions.iter().map(Comment::of).collect::<Result<Vec<_>, _>>()?;
    let pages = group(header, &comments)?;
    let mut files = BTreeMap::new();
    let mut put = |name: &str, text: String| files.insert(format!("{name}.3"), text);
    put(&header.name, overview::write(header, &pages));
    for page in &pages {
        put(page.name(), page.write(header, &see_also(page, &pages, header)));
        let structs = page.structs.iter().map(|kind| kind.name.as_str());
        for name in page.function_names().into_iter().skip(1).chain(structs) {
            put(name, reference(page.name()));
        }
    }
    for opaque in header.types.iter().filter(|kind| kind.fields.is_empty()) {
        put(&opaque.name, reference(&header.name));
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
    let mut structs: Vec<&Type> = header.types.iter().filter(|kind| !kind.fields.is_empty()).collect();
    // One that stands in another goes with that, which may stand in a third.
    while !structs.is_empty() {
        let before = structs.len();
        structs.retain(|kind| match pages.iter_mut().find(|page| takes(page, kind)) {
            Some(page) => {
                page.structs.push(kind);
                false
            }
            None => true,
        });
        if structs.len() == before {
            return Err(format!("no function takes a {}", structs[0].name));
        }
    }
    Ok(pages)
}

/// Whether a function of the page, or a struct on it, has the type.
fn takes(page: &Page<'_>, kind: &Type) -> bool {
    let has = |text: &str| text.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == kind.name);
    page.functions.iter().flat_map(|(function, _)| &function.parameters).any(|parameter| has(&parameter.kind))
        || page.structs.iter().flat_map(|other| &other.fields).any(|field| has(&field.declaration))
}

/// The pages that this one names, and those that name it.
fn see_also<'a>(page: &Page<'a>, pages: &'a [Page<'a>], header: &'a Header) -> Vec<&'a str> {
    let known = header.known_functions();
    let mut others = BTreeSet::from([header.name.as_str()]);
    if !header.beneath.is_empty() {
        others.insert(CORE);
    }
    if known.contains(&LAST_ERROR) {
        others.insert(LAST_ERROR);
    }
    others.extend(header.beneath.iter().map(String::as_str).filter(|name| words(page).any(|word| word == *name)));
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
    words(page).any(|word| other.functions.iter().any(|(function, _)| function.name == word))
}

/// The words of a page's comments.
fn words<'w>(page: &Page<'w>) -> impl Iterator<Item = &'w str> {
    let lines = page.functions.iter().flat_map(|&(function, _)| &function.comment).collect::<Vec<_>>();
    lines.into_iter().flat_map(|line| line.split(|c: char| !(c.is_alphanumeric() || c == '_')))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing helper is a failing test")]
mod tests {
    use super::*;

    const HEADER: &str = include_str!("../../../include/lock_manager.h");

    #[test]
    fn each_name_of_the_header_has_a_page_or_a_reference_to_one() {
        let header = Header::parse(HEADER, None).unwrap();
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
    fn a_library_on_top_has_pages_of_its_own_that_name_those_beneath() {
        let core = Header::parse(HEADER, None).unwrap();
        let header = Header::parse(include_str!("../../../etcd/include/lock_manager_etcd.h"), Some(&core)).unwrap();
        let pages = all(&header).unwrap();
        assert!(pages.keys().all(|name| name.contains("etcd")), "{:?}", pages.keys());
        let open = &pages["lock_manager_open_etcd.3"];
        for part in [
            ".B #include <lock_manager_etcd.h>\n",
            ".BR lock_manager (3)",
            ".BR lock_manager_etcd (3)",
            ".BR lock_manager_fencing_token (3)",
            &format!("lock_manager_etcd {}", core.version),
        ] {
            assert!(open.contains(part), "{part}: {open}");
        }
        assert!(pages["lock_manager_etcd_guard.3"].contains("\n\\fBLOCK_MANAGER_LOST\\fP\n"));
        assert!(pages["lock_manager_etcd_options_t.3"].contains("lock_manager_open_etcd.3"));
    }

    #[test]
    fn what_belongs_together_are_pages() {
        let pages = all(&Header::parse(HEADER, None).unwrap()).unwrap();
        for name in RELATED.iter().flat_map(|&(one, other)| [one, other]) {
            assert!(pages[&format!("{name}.3")].contains(".SH NAME\n"), "{name}");
        }
    }

    #[test]
    fn what_families_name_is_in_the_header() {
        let text = HEADER.replace("int32_t lock_manager_try_lock(", "int32_t lock_manager_other(");
        let sentence = all(&Header::parse(&text, None).unwrap()).err().unwrap();
        assert_eq!(sentence, "lock_manager_try_lock is in families.rs, but not here");
    }
}
