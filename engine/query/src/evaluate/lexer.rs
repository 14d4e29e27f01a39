//! Text to tokens, each with its place: of formulas, and of queries, which have more of them.

use crate::error::{Error, Result};
use crate::expr::MAX_SIZE;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// numexpr's formulas.
    Formula,
    /// Expressions of queries: with strings, parameters and names in backquotes.
    Query,
}

impl Language {
    /// The same with its article.
    fn article(self) -> &'static str {
        match self {
            Language::Formula => "a formula",
            Language::Query => "an expression",
        }
    }

    /// What a text in it is called.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Language::Formula => "formula",
            Language::Query => "expression",
        }
    }
}

/// A piece of text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'t> {
    Name(&'t str),
    /// A name in backquotes, whatever is in it.
    Quoted(&'t str),
    /// A string.
    Text(&'t str),
    /// A parameter's name, after a dollar.
    Param(&'t str),
    Int(i128),
    Float(f64),
    /// An operator or a bracket.
    Sign(&'static str),
}

/// Longer ones first.
const SIGNS: [&str; 28] = [
    "**", "//", "<<", ">>", "<=", ">=", "==", "!=", "+", "-", "*", "/", "%", "&", "|", "^", "~",
    "<", ">", "(", ")", ",", "=", ".", "[", "]", "@", ":",
];

/// An error at a byte of the text; people count characters.
pub(super) fn wrong(text: &str, at: usize, what: &str) -> Error {
    let position = text.get(..at).map_or(0, |before| before.chars().count());
    Error::InvalidPlan(format!("{what}, at position {position} of {}", shown(text)))
}

/// The text, cut where it is long.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// The tokens of a text and the bytes they begin at.
pub(super) fn tokens(text: &str, language: Language) -> Result<Vec<(Token<'_>, usize)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let first = rest.chars().next().unwrap_or(' ');
        let second = rest.chars().nth(1).unwrap_or(' ');
        if first.is_whitespace() {
            at += first.len_utf8();
        } else if first == '#' {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if first.is_ascii_digit() || first == '.' && second.is_ascii_digit() {
            let (token, len) = number(text, at, rest)?;
            found.push((token, at));
            at += len;
        } else if first.is_alphabetic() || first == '_' {
            let name = name(rest);
            if language == Language::Formula
                && matches!(rest.get(name.len()..).and_then(|r| r.chars().next()), Some('\'' | '"'))
            {
                return Err(strings(text));
            }
            found.push((Token::Name(name), at));
            at += name.len();
        } else if language == Language::Query && matches!(first, '\'' | '"' | '`') {
            let inner = quoted(text, at, rest, first)?;
            found.push((if first == '`' { Token::Quoted(inner) } else { Token::Text(inner) }, at));
            at += inner.len() + 2;
        } else if language == Language::Query && first == '$' {
            let param = name(rest.get(1..).unwrap_or_default());
            if param.is_empty() {
                return Err(wrong(text, at, "a parameter is written $name"));
            }
            found.push((Token::Param(param), at));
            at += param.len() + 1;
        } else if matches!(first, '\'' | '"') {
            return Err(strings(text));
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            found.push((Token::Sign(sign), at));
            at += sign.len();
        } else {
            let what = format!("{first:?} has no meaning in {}", language.article());
            return Err(wrong(text, at, &what));
        }
        if found.len() > MAX_SIZE as usize {
            return Err(Error::LimitExceeded(format!(
                "the {} has more than {MAX_SIZE} parts; compute it in several steps",
                language.noun()
            )));
        }
    }
    Ok(found)
}

/// The name that a text begins with.
fn name(rest: &str) -> &str {
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest)
}

/// What stands between the quote that a text begins with and the next of its kind.
fn quoted<'t>(text: &str, at: usize, rest: &'t str, quote: char) -> Result<&'t str> {
    let inner = rest.get(1..).unwrap_or_default();
    let end = inner.find(quote);
    let inner = end.and_then(|end| inner.get(..end));
    let inner = inner.ok_or_else(|| wrong(text, at, "this quote is never closed"))?;
    if inner.contains('\\') {
        let what = "a backslash, which means itself in some languages and not in others; give the \
                    text as a parameter";
        return Err(wrong(text, at, what));
    }
    Ok(inner)
}

fn strings(text: &str) -> Error {
    Error::Unsupported(format!(
        "the formula {} has a string, on which formulas do not compute; a query compares strings",
        shown(text)
    ))
}

/// A number, and the bytes it takes.
fn number<'t>(text: &str, at: usize, rest: &str) -> Result<(Token<'t>, usize)> {
    let bad = || wrong(text, at, "this number cannot be read");
    let bytes = rest.as_bytes();
    let radix = match bytes.get(1).map(u8::to_ascii_lowercase) {
        Some(b'x') if bytes.first() == Some(&b'0') => 16,
        Some(b'o') if bytes.first() == Some(&b'0') => 8,
        Some(b'b') if bytes.first() == Some(&b'0') => 2,
        _ => 10,
    };
    let mut end = if radix == 10 { 0 } else { 2 };
    let mut whole = true;
    if radix == 10 {
        let digits = |from: usize| {
            let more = bytes.get(from..).unwrap_or_default().iter();
            from + more.take_while(|b| b.is_ascii_digit() || **b == b'_').count()
        };
        end = digits(end);
        if bytes.get(end) == Some(&b'.') {
            whole = false;
            end = digits(end + 1);
        }
        if let Some(b'e' | b'E') = bytes.get(end) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
                whole = false;
                end = digits(end + 1 + sign);
            }
        }
        if let Some(b'j' | b'J') = bytes.get(end) {
            return Err(Error::Unsupported(format!(
                "the formula {} has a complex number; formulas compute on real ones only",
                shown(text)
            )));
        }
    } else {
        let more = bytes.get(end..).unwrap_or_default().iter();
        end += more.take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    }
    let written = rest.get(..end).ok_or_else(bad)?;
    if rest
        .get(end..)
        .and_then(|r| r.chars().next())
        .is_some_and(|c| c.is_alphanumeric() || c == '_')
        || written.ends_with('_')
        || written.contains("__")
    {
        return Err(bad());
    }
    let plain: String = written.chars().filter(|c| *c != '_').collect();
    if !whole {
        return plain.parse().map(|v| (Token::Float(v), end)).map_err(|_| bad());
    }
    let digits = if radix == 10 { plain.as_str() } else { plain.get(2..).unwrap_or_default() };
    if radix == 10
        && digits.len() > 1
        && digits.starts_with('0')
        && !digits.trim_matches('0').is_empty()
    {
        return Err(bad());
    }
    match i128::from_str_radix(digits, radix) {
        Ok(value) => Ok((Token::Int(value), end)),
        Err(error) if *error.kind() == std::num::IntErrorKind::PosOverflow => {
            Err(Error::LimitExceeded(format!("the number {written} does not fit 64 bits")))
        }
        Err(_) => Err(bad()),
    }
}
