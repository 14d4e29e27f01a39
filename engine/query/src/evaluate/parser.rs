//! Tokens to a tree, as Python would read them: its operators with its precedences. The tree is a
//! list in which what is below stands before what is above, so that nothing that walks it recurses.
//! Expressions of queries are written the same way, with the functions of the one table.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::evaluate::Reduction;
use crate::evaluate::constant::Constant;
use crate::evaluate::functions::{self, FUNCTIONS, Function, Rule};
use crate::evaluate::lexer::{Language, Token, shown, tokens, wrong};
use crate::functions::{Function as Operation, FunctionKind};
use crate::scalar::Scalar;
use crate::schema::unknown_column;

/// Brackets, signs and powers nest at most this deep.
const MAX_NESTING: usize = 200;

/// A node by its place in the list.
pub(crate) type Id = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    Neg,
    Not,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
    ShiftLeft,
    ShiftRight,
    And,
    Xor,
    Or,
    Lt,
    Le,
    Eq,
    Ne,
    Ge,
    Gt,
}

impl Binary {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Binary::Add => "+",
            Binary::Sub => "-",
            Binary::Mul => "*",
            Binary::Div => "/",
            Binary::FloorDiv => "//",
            Binary::Mod => "%",
            Binary::Pow => "**",
            Binary::ShiftLeft => "<<",
            Binary::ShiftRight => ">>",
            Binary::And => "&",
            Binary::Xor => "^",
            Binary::Or => "|",
            Binary::Lt => "<",
            Binary::Le => "<=",
            Binary::Eq => "==",
            Binary::Ne => "!=",
            Binary::Ge => ">=",
            Binary::Gt => ">",
        }
    }

    /// The operator of a sign, and how tightly it binds.
    fn of(sign: &str) -> Option<(Binary, u8)> {
        Some(match sign {
            "<" => (Binary::Lt, COMPARISON),
            "<=" => (Binary::Le, COMPARISON),
            "==" => (Binary::Eq, COMPARISON),
            "!=" => (Binary::Ne, COMPARISON),
            ">=" => (Binary::Ge, COMPARISON),
            ">" => (Binary::Gt, COMPARISON),
            "|" => (Binary::Or, 2),
            "^" => (Binary::Xor, 3),
            "&" => (Binary::And, 4),
            "<<" => (Binary::ShiftLeft, 5),
            ">>" => (Binary::ShiftRight, 5),
            "+" => (Binary::Add, 6),
            "-" => (Binary::Sub, 6),
            "*" => (Binary::Mul, 7),
            "/" => (Binary::Div, 7),
            "//" => (Binary::FloorDiv, 7),
            "%" => (Binary::Mod, 7),
            "**" => (Binary::Pow, POWER),
            _ => return None,
        })
    }
}

const COMPARISON: u8 = 1;
/// Signs before a value bind tighter than products and looser than powers.
const SIGN: u8 = 8;
const POWER: u8 = 9;

#[derive(Debug)]
pub(crate) enum Node {
    Constant(Constant),
    /// By its place in the list of names.
    Variable(usize),
    Unary(Unary, Id),
    Binary(Binary, Id, Id),
    Call(&'static Function, Vec<Id>),
    /// What only queries have.
    Query(QueryNode),
}

/// A node of a query's expression.
#[derive(Debug)]
pub(crate) enum QueryNode {
    Null,
    Text(Arc<str>),
    Param(Arc<str>),
    /// A function with all of its arguments but options that are left as they are.
    Call(&'static Operation, Vec<Id>),
    /// A condition, the value where it holds, the value elsewhere.
    Where(Id, Id, Id),
    /// A value, and what it may be one of.
    IsIn(Id, Vec<Id>),
}

/// A formula: its nodes, the root last; the names of its variables, sorted; the reduction of it all.
pub(super) struct Parsed {
    pub(super) nodes: Vec<Node>,
    pub(super) names: Vec<Arc<str>>,
    pub(super) reduction: Option<(Reduction, Option<u8>)>,
}

/// Expressions of a query: their nodes; the names of the columns; whether all columns come first; of
/// each expression its root, and the name that it is given.
pub(crate) struct Expressions {
    pub(crate) nodes: Vec<Node>,
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) all: bool,
    pub(crate) roots: Vec<(Id, Option<Arc<str>>)>,
}

/// Reads expressions between commas, `a, b * 2 AS twice`, all columns, `*`, possibly before them.
pub(crate) fn parse_list(text: &str) -> Result<Expressions> {
    let mut parser = Parser::new(text, Language::Query)?;
    let all = parser.takes("*");
    let mut roots = Vec::new();
    let mut more = !all || parser.takes(",");
    while more {
        let root = parser.whole()?;
        let mut name = None;
        if parser.takes_word("as") {
            name = match parser.take()? {
                (Token::Name(name) | Token::Quoted(name), _) => Some(Arc::from(name)),
                (token, at) => return Err(parser.unexpected(token, at)),
            };
        }
        roots.push((root, name));
        more = parser.takes(",");
    }
    parser.end()?;
    Ok(Expressions { nodes: parser.nodes, names: parser.names, all, roots })
}

/// Reads one expression of a query; its root is the only one.
pub(crate) fn parse_one(text: &str) -> Result<Expressions> {
    let mut parser = Parser::new(text, Language::Query)?;
    let root = parser.whole()?;
    parser.end()?;
    let roots = vec![(root, None)];
    Ok(Expressions { nodes: parser.nodes, names: parser.names, all: false, roots })
}

pub(super) fn parse(text: &str) -> Result<Parsed> {
    let mut parser = Parser::new(text, Language::Formula)?;
    let root = parser.whole()?;
    parser.end()?;
    let Parser { mut nodes, mut names, reduction, .. } = parser;
    let reduction = match reduction {
        Some((at, inner, reduction, axis)) => {
            if root != inner {
                let what = format!(
                    "{} stands inside of something; a reduction must be the whole formula",
                    reduction.name()
                );
                return Err(wrong(text, at, &what));
            }
            Some((reduction, axis))
        }
        None => None,
    };
    // Names sorted, as numexpr orders its operands.
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by(|a, b| names.get(*a).cmp(&names.get(*b)));
    for node in &mut nodes {
        if let Node::Variable(index) = node {
            *index = order.iter().position(|old| old == index).unwrap_or_default();
        }
    }
    names.sort();
    Ok(Parsed { nodes, names, reduction })
}

struct Parser<'t> {
    text: &'t str,
    language: Language,
    tokens: Vec<(Token<'t>, usize)>,
    next: usize,
    nesting: usize,
    nodes: Vec<Node>,
    names: Vec<Arc<str>>,
    /// Where one stands, what it reduces, which, along which axis.
    reduction: Option<(usize, Id, Reduction, Option<u8>)>,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str, language: Language) -> Result<Parser<'t>> {
        let tokens = tokens(text, language)?;
        if tokens.is_empty() {
            return Err(wrong(text, 0, &format!("the {} is empty", language.noun())));
        }
        Ok(Parser {
            text,
            language,
            tokens,
            next: 0,
            nesting: 0,
            nodes: Vec::new(),
            names: Vec::new(),
            reduction: None,
        })
    }

    /// # Errors
    /// If something is left.
    fn end(&self) -> Result<()> {
        match self.peek() {
            Some((token, at)) => Err(self.unexpected(token, at)),
            None => Ok(()),
        }
    }

    fn peek(&self) -> Option<(Token<'t>, usize)> {
        self.tokens.get(self.next).copied()
    }

    fn take(&mut self) -> Result<(Token<'t>, usize)> {
        let token = self.peek();
        self.next += 1;
        token.ok_or_else(|| {
            let what = format!("the {} ends too early", self.language.noun());
            wrong(self.text, self.text.len(), &what)
        })
    }

    fn takes(&mut self, sign: &str) -> bool {
        let there = matches!(self.peek(), Some((Token::Sign(s), _)) if s == sign);
        self.next += usize::from(there);
        there
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let there =
            matches!(self.peek(), Some((Token::Name(w), _)) if w.eq_ignore_ascii_case(word));
        self.next += usize::from(there);
        there
    }

    fn push(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn unexpected(&self, token: Token<'_>, at: usize) -> Error {
        let what = match token {
            Token::Name(word @ ("and" | "or" | "not")) if self.language == Language::Formula => {
                let sign = match word {
                    "and" => "&",
                    "or" => "|",
                    _ => "~",
                };
                format!(
                    "{word:?} is not for arrays; write {sign:?}, with brackets around comparisons"
                )
            }
            Token::Name("if" | "else") => "a choice is written where(condition, a, b)".to_owned(),
            Token::Name(name) | Token::Quoted(name) => {
                format!("the name {name:?} is not expected here")
            }
            Token::Text(text) => format!("the string {text:?} is not expected here"),
            Token::Param(name) => format!("the parameter ${name} is not expected here"),
            Token::Int(value) => format!("the number {value} is not expected here"),
            Token::Float(value) => format!("the number {value:?} is not expected here"),
            Token::Sign("=") => "one \"=\" assigns; compare with \"==\"".to_owned(),
            Token::Sign(sign @ ("[" | "]" | ":")) => {
                format!("{sign:?} has no meaning here; select elements before")
            }
            Token::Sign(sign) => format!("{sign:?} is not expected here"),
        };
        wrong(self.text, at, &what)
    }

    fn deeper(&mut self) -> Result<()> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(Error::LimitExceeded(format!(
                "the {} {} nests deeper than {MAX_NESTING}; compute parts of it first",
                self.language.noun(),
                shown(self.text)
            )));
        }
        Ok(())
    }

    /// A whole expression. In queries, `not`, `and` and `or` bind looser than all else, in this order.
    fn whole(&mut self) -> Result<Id> {
        if self.language == Language::Formula {
            return self.expression(0);
        }
        self.deeper()?;
        let mut any = self.conjunction()?;
        while self.takes_word("or") {
            let right = self.conjunction()?;
            any = self.push(Node::Binary(Binary::Or, any, right));
        }
        self.nesting -= 1;
        Ok(any)
    }

    fn conjunction(&mut self) -> Result<Id> {
        let mut all = self.negation()?;
        while self.takes_word("and") {
            let right = self.negation()?;
            all = self.push(Node::Binary(Binary::And, all, right));
        }
        Ok(all)
    }

    fn negation(&mut self) -> Result<Id> {
        let mut negated = false;
        while self.takes_word("not") {
            negated = !negated;
        }
        let inner = self.expression(0)?;
        Ok(if negated { self.push(Node::Unary(Unary::Not, inner)) } else { inner })
    }

    /// What operators that bind tighter than `least` hold together.
    fn expression(&mut self, least: u8) -> Result<Id> {
        self.deeper()?;
        let mut left = self.value()?;
        let mut compared = false;
        while let Some((Token::Sign(sign), at)) = self.peek() {
            let Some((op, power)) = Binary::of(sign) else { break };
            if power <= least {
                break;
            }
            if power == COMPARISON && compared {
                let what = "comparisons in a row; write (a < b) & (b < c)";
                return Err(wrong(self.text, at, what));
            }
            compared |= power == COMPARISON;
            self.next += 1;
            // Powers bind from the right, and looser than a sign after them.
            let right = self.expression(if op == Binary::Pow { SIGN - 1 } else { power })?;
            left = self.push(Node::Binary(op, left, right));
        }
        self.nesting -= 1;
        Ok(left)
    }

    fn value(&mut self) -> Result<Id> {
        let (token, at) = self.take()?;
        let mut value = match token {
            Token::Sign("-") => {
                let inner = self.expression(SIGN)?;
                self.push(Node::Unary(Unary::Neg, inner))
            }
            Token::Sign("+") => self.expression(SIGN)?,
            Token::Sign("~") => {
                let inner = self.expression(SIGN)?;
                self.push(Node::Unary(Unary::Not, inner))
            }
            Token::Sign("(") => {
                let inner = self.whole()?;
                self.close(at)?;
                inner
            }
            Token::Int(value) => self.push(Node::Constant(Constant::Int(value))),
            Token::Float(value) => self.push(Node::Constant(Constant::Float(value))),
            Token::Text(text) => self.push(Node::Query(QueryNode::Text(text.into()))),
            Token::Param(name) => self.push(Node::Query(QueryNode::Param(name.into()))),
            Token::Quoted(name) => self.named(name),
            Token::Name("null") if self.language == Language::Query => {
                self.push(Node::Query(QueryNode::Null))
            }
            Token::Name("True") => self.push(Node::Constant(Constant::Bool(true))),
            Token::Name("False") => self.push(Node::Constant(Constant::Bool(false))),
            Token::Name(name) if self.takes("(") => match self.language {
                Language::Formula => self.call(name, at)?,
                Language::Query => self.query_call(name, at)?,
            },
            Token::Name(name) => self.variable(name, at)?,
            Token::Sign(_) => return Err(self.unexpected(token, at)),
        };
        while self.language == Language::Formula && self.takes(".") {
            let (token, at) = self.take()?;
            value = match token {
                Token::Name(name @ ("real" | "imag")) => {
                    let part = functions::find(name).ok_or_else(|| self.unexpected(token, at))?;
                    self.push(Node::Call(part, vec![value]))
                }
                _ => {
                    let what = "of attributes formulas know .real and .imag only";
                    return Err(wrong(self.text, at, what));
                }
            };
        }
        Ok(value)
    }

    fn close(&mut self, opened: usize) -> Result<()> {
        if self.takes(")") {
            return Ok(());
        }
        match self.peek() {
            Some((token, at)) => Err(self.unexpected(token, at)),
            None => Err(wrong(self.text, opened, "this bracket is never closed")),
        }
    }

    fn variable(&mut self, name: &str, at: usize) -> Result<Id> {
        const WORDS: [&str; 10] =
            ["and", "or", "not", "if", "else", "in", "is", "lambda", "None", "for"];
        if WORDS.contains(&name) {
            return Err(self.unexpected(Token::Name(name), at));
        }
        if self.language == Language::Formula && functions::find(name).is_some() {
            let what = format!("{name:?} is a function; call it, or give the operand another name");
            return Err(wrong(self.text, at, &what));
        }
        Ok(self.named(name))
    }

    fn named(&mut self, name: &str) -> Id {
        let index = self.names.iter().position(|known| **known == *name);
        let index = index.unwrap_or_else(|| {
            self.names.push(name.into());
            self.names.len() - 1
        });
        self.push(Node::Variable(index))
    }

    /// A call in a query; the bracket is open.
    fn query_call(&mut self, name: &str, at: usize) -> Result<Id> {
        let mut args = Vec::new();
        while !self.takes(")") {
            if !args.is_empty() && !self.takes(",") {
                self.close(at)?;
                break;
            }
            args.push(self.whole()?);
        }
        let node = match (name, args.as_slice()) {
            ("where", [condition, a, b]) => QueryNode::Where(*condition, *a, *b),
            ("is_in", [value, set @ ..]) => QueryNode::IsIn(*value, set.to_vec()),
            ("where" | "is_in", _) => {
                let what = "where(condition, a, b) and is_in(value, a, b, ...) are written so";
                return Err(wrong(self.text, at, what));
            }
            _ => {
                let Some(function) = Operation::by_name(name) else {
                    return Err(self.no_operation(name, at));
                };
                QueryNode::Call(function, self.with_options(function, args, at)?)
            }
        };
        Ok(self.push(Node::Query(node)))
    }

    /// All arguments, where options at the end may be left out.
    fn with_options(
        &mut self,
        function: &'static Operation,
        mut args: Vec<Id>,
        at: usize,
    ) -> Result<Vec<Id>> {
        let defaults = function.defaults();
        let missing = function.arity().saturating_sub(args.len());
        if missing <= defaults.len() {
            for value in defaults.into_iter().rev().take(missing).rev() {
                let node = match value {
                    Scalar::Bool(value) => Node::Constant(Constant::Bool(value)),
                    Scalar::Int(value) => Node::Constant(Constant::Int(value.into())),
                    Scalar::Float(value) => Node::Constant(Constant::Float(value)),
                    Scalar::Str(text) => Node::Query(QueryNode::Text(text)),
                    _ => Node::Query(QueryNode::Null),
                };
                args.push(self.push(node));
            }
        }
        if function.takes(args.len()) {
            return Ok(args);
        }
        let (takes, given) = (function.arity(), args.len());
        let least = if function.kind == FunctionKind::Horizontal { "at least " } else { "" };
        let what = format!("{function} takes {least}{takes} arguments, {given} are given");
        Err(wrong(self.text, at, &what))
    }

    fn no_operation(&self, name: &str, at: usize) -> Error {
        let known = crate::functions::functions().iter().map(|f| f.name);
        let nearest = match unknown_column(name, known.chain(["where", "is_in"])) {
            Error::UnknownColumn { nearest: Some(nearest), .. } => {
                format!("; did you mean {nearest:?}?")
            }
            _ => String::new(),
        };
        wrong(self.text, at, &format!("queries have no function {name:?}{nearest}"))
    }

    /// A call; the bracket is open.
    fn call(&mut self, name: &str, at: usize) -> Result<Id> {
        let Some(function) = functions::find(name) else {
            return Err(self.no_function(name, at));
        };
        let mut args = Vec::new();
        let mut axis = None;
        while !self.takes(")") {
            if !args.is_empty() && !self.takes(",") {
                self.close(at)?;
                break;
            }
            if function.rule == Rule::Reduction && args.len() == 1 {
                if self.takes(")") {
                    break;
                }
                axis = self.axis()?;
                self.takes(",");
                self.close(at)?;
                break;
            }
            if !args.is_empty() && self.takes(")") {
                break;
            }
            args.push(self.whole()?);
        }
        if args.len() != function.arity {
            let (takes, given) = (function.arity, args.len());
            let what = format!("{name} takes {takes} arguments, {given} are given");
            return Err(wrong(self.text, at, &what));
        }
        let reduction = match name {
            "sum" => Reduction::Sum,
            "prod" => Reduction::Prod,
            "min" => Reduction::Min,
            "max" => Reduction::Max,
            _ => {
                if function.rule == Rule::Refused {
                    return Err(refused(name, self.text));
                }
                return Ok(self.push(Node::Call(function, args)));
            }
        };
        let inner = args.first().copied().unwrap_or_default();
        if self.reduction.is_some() {
            return Err(wrong(self.text, at, "a second reduction; a formula has at most one"));
        }
        // A node of its own, so that what reduces a variable is told from the variable.
        let copy = functions::find("copy").ok_or_else(|| self.no_function("copy", at))?;
        let inner = self.push(Node::Call(copy, vec![inner]));
        self.reduction = Some((at, inner, reduction, axis));
        Ok(inner)
    }

    /// `0`, `axis=0`, `None`, `axis=None`.
    fn axis(&mut self) -> Result<Option<u8>> {
        if matches!(self.peek(), Some((Token::Name("axis"), _))) {
            self.next += 1;
            if !self.takes("=") {
                let (token, at) = self.take()?;
                return Err(self.unexpected(token, at));
            }
        }
        let (token, at) = self.take()?;
        match token {
            Token::Name("None") => Ok(None),
            Token::Int(axis) if axis < 255 => Ok(u8::try_from(axis).ok()),
            _ => {
                let what = "an axis is a number from 0 on, or None";
                Err(wrong(self.text, at, what))
            }
        }
    }

    fn no_function(&self, name: &str, at: usize) -> Error {
        let nearest = match unknown_column(name, FUNCTIONS.iter().map(|f| f.name)) {
            Error::UnknownColumn { nearest: Some(nearest), .. } => {
                format!("; did you mean {nearest:?}?")
            }
            _ => String::new(),
        };
        wrong(self.text, at, &format!("formulas have no function {name:?}{nearest}"))
    }
}

fn refused(name: &str, text: &str) -> Error {
    let why = match name {
        "contains" => "is about strings, on which formulas do not compute",
        _ => "is about complex numbers; formulas compute on real ones only",
    };
    Error::Unsupported(format!("{name}, in {}, {why}", shown(text)))
}
