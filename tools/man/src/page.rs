// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page of one function, or of a family of them.

use crate::comment::{Comment, Errors, Item, errors};
use crate::header::{Constant, ERRORS, Function, Header, Type};
use crate::roff::{self, Names, bold, escape, italic};

/// How many columns a declaration may have: what a terminal of 80 leaves beside the page's indentation.
const COLUMNS: usize = 72;
/// Before what follows of a declaration that is longer.
const CONTINUED: &str = "        ";

/// What a page is made of.
pub struct Page<'a> {
    pub summary: String,
    /// The first gives the page its name.
    pub functions: Vec<(&'a Function, &'a Comment)>,
    /// The structs that these functions are the first to take.
    pub structs: Vec<&'a Type>,
}

impl<'a> Page<'a> {
    pub fn name(&self) -> &'a str {
        &self.functions[0].0.name
    }

    pub fn function_names(&self) -> Vec<&'a str> {
        self.functions.iter().map(|(function, _)| function.name.as_str()).collect()
    }

    fn is_family(&self) -> bool {
        self.functions.len() > 1
    }

    fn returns_codes(&self) -> bool {
        self.functions.iter().any(|(function, _)| function.returns_code())
    }

    /// The page as man(7) reads it.
    pub fn write(&self, header: &Header, see_also: &[&str]) -> String {
        let functions = header.known_functions();
        let parameters = self.functions.iter().flat_map(|(function, _)| &function.parameters);
        let parameters: Vec<&str> = parameters.map(|parameter| parameter.name.as_str()).collect();
        let here = self.function_names();
        let names = Names { functions: &functions, here: &here, parameters: &parameters };

        let mut page = title(self.name(), header);
        page.push_str(&format!(".SH NAME\n{} \\- {}\n", here.join(", "), escape(&self.summary)));
        page.push_str(&format!(".SH SYNOPSIS\n.nf\n.B #include <{}.h>\n", header.name));
        for (function, _) in &self.functions {
            page.push_str(&format!(".PP\n{}", declaration(function)));
        }
        page.push_str(".fi\n.SH DESCRIPTION\n");
        self.description(&names, header, &mut page);
        page.push_str(".SH RETURN VALUE\n");
        self.return_value(&names, header, &mut page);
        if self.returns_codes() {
            page.push_str(".SH ERRORS\n");
            self.errors(&names, header, &mut page);
        }
        page.push_str(".SH SEE ALSO\n");
        let others: Vec<String> = see_also.iter().map(|name| format!(".BR {name} (3)")).collect();
        page.push_str(&format!("{}\n", others.join(" ,\n").replace("(3) ,", "(3),")));
        page
    }

    fn description(&self, names: &Names<'_>, header: &Header, page: &mut String) {
        for (function, comment) in &self.functions {
            if self.is_family() {
                page.push_str(&format!(".SS {}()\n", function.name));
            }
            page.push_str(&paragraphs(&comment.description, names));
            for Item { tag, text } in &comment.parameters {
                page.push_str(&tagged(&italic(tag), &roff::meaning(text, names)));
            }
        }
        for kind in &self.structs {
            page.push_str(&structure(kind, names, &header.constants));
        }
    }

    fn return_value(&self, names: &Names<'_>, header: &Header, page: &mut String) {
        if !self.returns_codes() {
            page.push_str("A string that belongs to the library, never NULL.\n");
            return;
        }
        let successes: Vec<&Item> = self.functions.iter().flat_map(|(_, comment)| &comment.successes).collect();
        for Item { tag, text } in &successes {
            page.push_str(&tagged(&roff::styled(tag, names), &roff::meaning(text, names)));
        }
        // What a constant means stands with it, unless these functions say it in words of their own.
        for constant in &header.constants {
            let has = |tag: &str| successes.iter().any(|item| item.tag == tag);
            if has(&format!("0 or {}", constant.name)) && !has(&constant.name) {
                page.push_str(&tagged(&bold(&constant.name), &roff::text(&constant.comment.join(" "), names)));
            }
        }
        page.push_str(if successes.is_empty() { "On success, 0.\n" } else { ".PP\n" });
        let sentence = "On failure, a negative error number, and lock_manager_last_error() says in words what happened. \
                        No function reads or sets errno.";
        page.push_str(&roff::text(sentence, names));
    }

    fn errors(&self, names: &Names<'_>, header: &Header, page: &mut String) {
        for (function, comment) in &self.functions {
            if self.is_family() {
                page.push_str(&format!(".SS {}()\n", function.name));
            }
            page.push_str(&listed(&comment.errors, names));
        }
        if self.is_family() {
            page.push_str(".SS All of them\n");
        } else {
            page.push_str(".PP\n");
        }
        page.push_str(&listed(&errors(header.section(ERRORS)), names));
    }
}

/// What every page begins with. Lines are not stretched: long names would leave holes.
pub fn title(name: &str, header: &Header) -> String {
    let library = &header.name;
    format!(
        ".\\\" SPDX-License-Identifier: MIT OR Apache-2.0\n.\\\" Made from {library}.h; edit the comments there.\n\
         .TH {name} 3 \"\" \"{library} {}\" \"{library}\"\n.ad l\n",
        header.version
    )
}

pub fn tagged(tag: &str, text: &str) -> String {
    format!(".TP\n{tag}\n{text}")
}

/// Paragraphs, of which the first follows a heading.
pub fn paragraphs(texts: &[String], names: &Names<'_>) -> String {
    texts.iter().map(|text| roff::text(text, names)).collect::<Vec<_>>().join(".PP\n")
}

/// Errors, below a heading or what introduces them.
pub fn listed(errors: &Errors, names: &Names<'_>) -> String {
    let mut list = String::new();
    if !errors.before.is_empty() {
        list.push_str(&roff::text(&errors.before, names));
    }
    for Item { tag, text } in &errors.entries {
        let codes: Vec<String> = tag.split(", ").map(bold).collect();
        list.push_str(&tagged(&codes.join(", "), &roff::meaning(text, names)));
    }
    for reference in &errors.references {
        if !list.is_empty() {
            list.push_str(".PP\n");
        }
        list.push_str(&roff::text(reference, names));
    }
    list
}

/// A declaration in lines that a terminal has room for: types bold, names italic.
fn declaration(function: &Function) -> String {
    let head = format!("{}{}(", function.result, function.name);
    if function.parameters.is_empty() {
        return format!(".B {head}void);\n");
    }
    // Bold and italic by turns, bold first.
    let mut parts = vec![head.clone()];
    let mut width = head.len();
    let mut lines = String::new();
    for (index, parameter) in function.parameters.iter().enumerate() {
        let end = if index + 1 == function.parameters.len() { ");" } else { "," };
        let piece = parameter.kind.len() + parameter.name.len() + end.len();
        if index > 0 && width + 1 + piece > COLUMNS {
            lines.push_str(&by_turns(&parts));
            parts = vec![CONTINUED.to_owned()];
            width = CONTINUED.len();
        } else if index > 0 {
            width += 1;
            if let Some(last) = parts.last_mut() {
                last.push(' ');
            }
        }
        if let Some(last) = parts.last_mut() {
            last.push_str(&parameter.kind);
        }
        parts.extend([parameter.name.clone(), end.to_owned()]);
        width += piece;
    }
    lines + &by_turns(&parts)
}

fn by_turns(parts: &[String]) -> String {
    let parts: Vec<String> = parts.iter().map(|part| format!("\"{}\"", escape(part))).collect();
    format!(".BI {}\n", parts.join(" "))
}

/// A struct with its fields. The constants that a field may be are listed with it.
fn structure(kind: &Type, names: &Names<'_>, constants: &[Constant]) -> String {
    let mut text =
        format!(".SS {}\n{}.PP\n.nf\ntypedef struct {{\n", kind.name, roff::text(&kind.comment.join(" "), names));
    for field in &kind.fields {
        text.push_str(&format!("    {}\n", escape(&field.declaration)));
    }
    text.push_str(&format!("}} {};\n.fi\n", kind.name));
    for field in &kind.fields {
        let comment = field.comment.join(" ");
        text.push_str(&tagged(&italic(field.name()), &roff::text(&comment, names)));
        let choice: Vec<&Constant> = constants.iter().filter(|constant| is_choice(&comment, &constant.name)).collect();
        if !choice.is_empty() {
            text.push_str(".RS\n");
            for constant in choice {
                text.push_str(&tagged(&bold(&constant.name), &roff::text(&constant.comment.join(" "), names)));
            }
            text.push_str(".RE\n");
        }
    }
    text
}

/// Whether a comment names the constant by `LOCK_MANAGER_KIND_…`.
fn is_choice(comment: &str, constant: &str) -> bool {
    comment
        .split_whitespace()
        .filter_map(|word| word.split_once('\u{2026}'))
        .any(|(start, _)| constant.starts_with(start))
}
