// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page of a library, such as lock_manager(3): what holds for every function, and which functions, types and constants there are.

use crate::comment::errors;
use crate::header::{ERRORS, Header, RETURN_VALUES};
use crate::page::{Page, listed, tagged, title};
use crate::roff::{self, Names, bold, escape, italic};

pub fn write(header: &Header, pages: &[Page<'_>]) -> String {
    let (name, functions) = (&header.name, header.known_functions());
    let names = Names { functions: &functions, here: &[], parameters: &[] };
    let mut page = title(name, header);
    page.push_str(&format!(".SH NAME\n{name} \\- {}\n", escape(&header.title)));
    page.push_str(&format!(
        ".SH LIBRARY\nlib{name}; compile and link with what\n.B pkg\\-config \\-\\-cflags \\-\\-libs {name}\nsays.\n"
    ));
    page.push_str(&format!(".SH SYNOPSIS\n.nf\n.B #include <{name}.h>\n.fi\n.SH DESCRIPTION\n"));
    page.push_str("What holds for every function stands here; each has a page of its own.\n");
    for (title, text) in header.sections.iter().filter(|(title, _)| title != RETURN_VALUES && title != ERRORS) {
        page.push_str(&format!(".SS {}\n{}", heading(title), roff::text(text, &names)));
    }
    page.push_str(".SS Functions\n");
    for described in pages {
        let described_names: Vec<String> =
            described.function_names().iter().map(|name| roff::styled(name, &names)).collect();
        page.push_str(&tagged(&described_names.join(", "), &format!("{}\n", escape(&described.summary))));
    }
    page.push_str(".SS Types\n");
    for kind in &header.types {
        page.push_str(&tagged(&italic(&kind.name), &roff::text(&kind.comment.join(" "), &names)));
    }
    page.push_str(".SS Constants\n");
    for constant in &header.constants {
        page.push_str(&tagged(&bold(&constant.name), &roff::text(&constant.comment.join(" "), &names)));
    }
    page.push_str(&format!(".SH RETURN VALUE\n{}", roff::text(header.section(RETURN_VALUES), &names)));
    page.push_str(&format!(".SH ERRORS\n{}", listed(&errors(header.section(ERRORS)), &names)));
    let beneath = if header.beneath.is_empty() { "" } else { ".BR lock_manager (3),\n" };
    page.push_str(&format!(
        ".SH SEE ALSO\n{beneath}.BR lockctl (1),\n.BR pthread_mutexattr_setrobust (3),\n.BR shm_overview (7)\n"
    ));
    page
}

/// "SIGNALS" as "Signals".
fn heading(title: &str) -> String {
    let (first, rest) = title.split_at(1);
    format!("{first}{}", rest.to_lowercase())
}
