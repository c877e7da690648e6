// SPDX-License-Identifier: MIT OR Apache-2.0
//! The header's declarations with their comments, as cbindgen writes them: a comment, then what it is about.

/// What the header says, in its order.
pub struct Header {
    /// The library's name.
    pub name: String,
    /// What the library is, in one line.
    pub title: String,
    pub version: String,
    /// The sections of the header's own comment: a title in capitals, and a text of one paragraph.
    pub sections: Vec<(String, String)>,
    pub constants: Vec<Constant>,
    pub types: Vec<Type>,
    pub functions: Vec<Function>,
    /// The functions of the header that this one is on top of.
    pub beneath: Vec<String>,
}

pub struct Constant {
    pub name: String,
    pub comment: Vec<String>,
}

pub struct Type {
    pub name: String,
    pub comment: Vec<String>,
    /// None: the type's inside is the library's.
    pub fields: Vec<Field>,
}

pub struct Field {
    /// Its type and name.
    pub declaration: String,
    pub comment: Vec<String>,
}

pub struct Function {
    pub name: String,
    /// What stands before its name.
    pub result: String,
    pub parameters: Vec<Parameter>,
    pub comment: Vec<String>,
}

/// A parameter: "const char *" and "path".
pub struct Parameter {
    pub kind: String,
    pub name: String,
}

impl Function {
    /// Whether it returns a code: 0, a positive constant or an error.
    pub fn returns_code(&self) -> bool {
        self.result == "int32_t "
    }
}

/// "const char *path" as "const char *" and "path".
fn split_name(declaration: &str) -> (&str, &str) {
    let start = declaration.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
    declaration.split_at(start)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The lines of a comment without its marks, from the first that says something to the last.
fn bare(comment: &str) -> Vec<String> {
    let marks = ['/', '*', ' ', '\n'];
    let inside = comment.trim_start_matches(marks).trim_end_matches(marks);
    inside.lines().map(|line| line.trim_start_matches(marks).trim_end().to_owned()).collect()
}

/// Paragraphs are parted by empty lines; each keeps its lines.
pub fn paragraphs(lines: &[String]) -> Vec<&[String]> {
    lines.split(|line| line.is_empty()).filter(|paragraph| !paragraph.is_empty()).collect()
}

/// Cuts `text` after the first `end`.
fn cut<'a>(text: &'a str, end: &str) -> Result<(&'a str, &'a str), String> {
    let at =
        text.find(end).ok_or_else(|| format!("there is no `{end}` after {:?}", text.lines().next().unwrap_or("")))?;
    Ok(text.split_at(at + end.len()))
}

/// Sections of the header's own comment that are sections of every page.
pub const RETURN_VALUES: &str = "RETURN VALUES";
pub const ERRORS: &str = "ERRORS";
const INHERITED: [&str; 2] = [RETURN_VALUES, ERRORS];

impl Header {
    /// All functions that a page may name, those beneath as well.
    pub fn known_functions(&self) -> Vec<&str> {
        let own = self.functions.iter().map(|function| &function.name);
        own.chain(&self.beneath).map(String::as_str).collect()
    }

    /// Reads a header. What it does not say of its version, its return values and its errors is said by the one that it is
    /// on top of.
    pub fn parse(text: &str, beneath: Option<&Self>) -> Result<Self, String> {
        let (own, mut rest) = cut(text, "*/")?;
        let mut header = Self::with_comment(&bare(own))?;
        if let Some(beneath) = beneath {
            header.version.clone_from(&beneath.version);
            header.beneath = beneath.functions.iter().map(|function| function.name.clone()).collect();
            for (title, text) in &beneath.sections {
                if INHERITED.contains(&title.as_str()) && header.section(title).is_empty() {
                    header.sections.push((title.clone(), text.clone()));
                }
            }
        }
        while let Some(start) = rest.find("/**") {
            let (comment, after) = cut(&rest[start..], "*/")?;
            rest = header.item(bare(comment), after.trim_start())?;
        }
        if header.version.is_empty() {
            return Err("LOCK_MANAGER_VERSION is not defined".to_owned());
        }
        Ok(header)
    }

    /// The text of a section of the header's own comment.
    pub fn section(&self, title: &str) -> &str {
        self.sections.iter().find(|(own, _)| own == title).map_or("", |(_, text)| text)
    }

    fn with_comment(lines: &[String]) -> Result<Self, String> {
        let mut header = Self {
            name: String::new(),
            title: String::new(),
            version: String::new(),
            sections: vec![],
            constants: vec![],
            types: vec![],
            functions: vec![],
            beneath: vec![],
        };
        for paragraph in paragraphs(lines) {
            let text = paragraph.join(" ");
            let is_name = |name: &str| name.starts_with("lock_manager") && !name.contains(' ');
            if let Some((name, title)) = text.split_once(": ").filter(|(name, _)| is_name(name)) {
                (header.name, header.title) = (name.to_owned(), title.trim_end_matches('.').to_owned());
            } else if let Some((title, text)) = text.split_once(". ")
                && title.chars().all(|c| c.is_ascii_uppercase() || c == ' ')
            {
                header.sections.push((title.to_owned(), text.to_owned()));
            }
        }
        if header.title.is_empty() {
            return Err("the first comment has no line `lock_manager: what it is.`".to_owned());
        }
        Ok(header)
    }

    /// Takes in what a comment is about; returns what follows.
    fn item<'a>(&mut self, comment: Vec<String>, text: &'a str) -> Result<&'a str, String> {
        if let Some(define) = text.strip_prefix("#define ") {
            let (line, rest) = cut(define, "\n")?;
            let (name, value) = line.trim().split_once(' ').ok_or("a macro has no value")?;
            if name == "LOCK_MANAGER_VERSION" {
                self.version = value.trim_matches('"').to_owned();
            }
            self.constants.push(Constant { name: name.to_owned(), comment });
            return Ok(rest);
        }
        if let Some(body) = text.strip_prefix("typedef struct {") {
            let (body, rest) = cut(body, "}")?;
            let (name, rest) = cut(rest, ";")?;
            let name = name.trim_end_matches(';').trim().to_owned();
            self.types.push(Type { name, comment, fields: fields(body)? });
            return Ok(rest);
        }
        let (declaration, rest) = cut(text, ";")?;
        let declaration = one_line(declaration.trim_end_matches(';'));
        if let Some(opaque) = declaration.strip_prefix("typedef ") {
            self.types.push(Type { name: split_name(opaque).1.to_owned(), comment, fields: vec![] });
        } else {
            self.functions.push(function(&declaration, comment)?);
        }
        Ok(rest)
    }
}

fn fields(mut body: &str) -> Result<Vec<Field>, String> {
    let mut fields = vec![];
    while let Some(start) = body.find("/**") {
        let (comment, after) = cut(&body[start..], "*/")?;
        let (declaration, rest) = cut(after, ";")?;
        fields.push(Field { declaration: one_line(declaration), comment: bare(comment) });
        body = rest;
    }
    Ok(fields)
}

fn function(declaration: &str, comment: Vec<String>) -> Result<Function, String> {
    let parts = declaration.strip_suffix(')').and_then(|declaration| declaration.split_once('('));
    let (head, parameters) = parts.ok_or_else(|| format!("`{declaration}` is no function"))?;
    let (result, name) = split_name(head);
    let parameters = parameters.split(", ").filter(|&parameter| parameter != "void").map(|parameter| {
        let (kind, name) = split_name(parameter);
        Parameter { kind: kind.to_owned(), name: name.to_owned() }
    });
    let parameters = parameters.collect();
    Ok(Function { name: name.to_owned(), result: result.to_owned(), parameters, comment })
}

impl Field {
    pub fn name(&self) -> &str {
        let declaration = self.declaration.trim_end_matches(';');
        match declaration.split_once("(*").and_then(|(_, rest)| rest.split_once(')')) {
            Some((function, _)) => function,
            None => split_name(declaration.split('[').next().unwrap_or(declaration)).1,
        }
    }
}
