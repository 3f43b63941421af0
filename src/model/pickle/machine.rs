//! Following a pickle without running it.

use super::{
    PickleError,
    imports::Import,
    opcode::{Argument, Effect, meaning},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, Read},
    rc::Rc,
};

/// Longest text that can name an import, in bytes; longer ones are data.
const TEXT_MAX: u64 = 4096;
/// Longest line, in bytes: a number in protocol 0.
const LINE_MAX: u64 = 1 << 20;
/// Most things on the stack, and most texts that are noted.
const DEPTH_MAX: usize = 1 << 22;
/// Most imports of one pickle.
const IMPORTS_MAX: usize = 1 << 14;

/// What lies on the stack, as far as it matters.
#[derive(Debug, Clone)]
enum Item {
    Text(Rc<str>),
    Mark,
    Other,
}

/// One pickle that is being followed.
pub(super) struct Machine<R> {
    input: R,
    at: u64,
    limit: u64,
    stack: Vec<Item>,
    /// What was noted by number; whatever is no text is nothing that can name an import.
    memo: BTreeMap<u64, Option<Rc<str>>>,
    imports: BTreeSet<Import>,
}

/// An argument that was read.
enum Operand {
    Nothing,
    Number(u64),
    Text(Option<Rc<str>>),
    Names(Rc<str>, Rc<str>),
}

impl<R: BufRead> Machine<R> {
    /// A pickle of at most `limit` bytes.
    pub(super) fn new(input: R, limit: u64) -> Self {
        let (stack, memo, imports) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        Self { input, at: 0, limit, stack, memo, imports }
    }

    /// Follows it to its end, and no further.
    pub(super) fn run(mut self) -> Result<BTreeSet<Import>, PickleError> {
        loop {
            let at = self.at;
            let [opcode] = self.bytes()?;
            let (argument, effect) = meaning(opcode).ok_or(PickleError::Opcode { opcode, at })?;
            let argument = self.argument(argument, effect)?;
            if effect == Effect::Stop {
                return Ok(self.imports);
            }
            self.apply(effect, argument).ok_or(PickleError::Underflow { at })?;
            if self.stack.len() > DEPTH_MAX || self.memo.len() > DEPTH_MAX || self.imports.len() > IMPORTS_MAX {
                return Err(PickleError::TooLarge("its stack, its memo, or its imports"));
            }
        }
    }

    /// Does what the instruction does; `None` if what it takes is not there.
    fn apply(&mut self, effect: Effect, argument: Operand) -> Option<()> {
        match (effect, argument) {
            (Effect::Replace(taken, put), _) => {
                let left = self.stack.len().checked_sub(taken)?;
                self.stack.truncate(left);
                self.stack.extend(std::iter::repeat_n(Item::Other, put));
            }
            (Effect::Text, Operand::Text(text)) => self.stack.push(text.map_or(Item::Other, Item::Text)),
            (Effect::Mark, _) => self.stack.push(Item::Mark),
            (Effect::ToMark(put), _) => {
                self.drop_to_mark()?;
                self.stack.extend(std::iter::repeat_n(Item::Other, put));
            }
            (Effect::Duplicate, _) => self.stack.push(self.stack.last()?.clone()),
            (Effect::Put, Operand::Number(number)) => self.note(number)?,
            (Effect::Memoize, _) => {
                // Python takes how many numbers are in use, which need not be the next free one.
                let number = self.memo.len() as u64;
                self.note(number)?;
            }
            (Effect::Get, Operand::Number(number)) => {
                let text = self.memo.get(&number).cloned().flatten();
                self.stack.push(text.map_or(Item::Other, Item::Text));
            }
            (Effect::Global, Operand::Names(module, name)) => {
                self.imports.insert(Import::new(&module, &name));
                self.stack.push(Item::Other);
            }
            (Effect::Instance, Operand::Names(module, name)) => {
                self.imports.insert(Import::new(&module, &name));
                self.drop_to_mark()?;
                self.stack.push(Item::Other);
            }
            (Effect::StackGlobal, _) => {
                let (name, module) = (self.stack.pop()?, self.stack.pop()?);
                self.imports.insert(match (module, name) {
                    (Item::Text(module), Item::Text(name)) => Import::new(&module, &name),
                    _ => Import::computed(),
                });
                self.stack.push(Item::Other);
            }
            (Effect::Extension, _) => {
                self.imports.insert(Import::computed());
                self.stack.push(Item::Other);
            }
            _ => return None,
        }
        Some(())
    }

    fn drop_to_mark(&mut self) -> Option<()> {
        let mark = self.stack.iter().rposition(|item| matches!(item, Item::Mark))?;
        self.stack.truncate(mark);
        Some(())
    }

    fn note(&mut self, number: u64) -> Option<()> {
        let text = match self.stack.last()? {
            Item::Text(text) => Some(Rc::clone(text)),
            Item::Mark | Item::Other => None,
        };
        self.memo.insert(number, text);
        Some(())
    }

    fn argument(&mut self, argument: Argument, effect: Effect) -> Result<Operand, PickleError> {
        Ok(match argument {
            Argument::None => Operand::Nothing,
            Argument::Fixed(length) => Operand::Number(self.number(length)?),
            Argument::TwoLines => Operand::Names(self.line()?, self.line()?),
            Argument::Line => {
                let line = self.line()?;
                match effect {
                    Effect::Get | Effect::Put => Operand::Number(number_of(&line)?),
                    Effect::Text => Operand::Text(Some(unquoted(&line))),
                    _ => Operand::Nothing,
                }
            }
            Argument::Counted(width) => {
                let length = self.number(u64::from(width))?;
                match effect {
                    Effect::Text => Operand::Text(self.counted(length)?),
                    _ => self.skip(length).map(|()| Operand::Nothing)?,
                }
            }
        })
    }

    fn advance(&mut self, count: u64) -> Result<(), PickleError> {
        self.at = self.at.saturating_add(count);
        if self.at > self.limit { Err(PickleError::TooLarge("its length")) } else { Ok(()) }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        self.advance(N as u64)?;
        Ok(bytes)
    }

    /// A little-endian number of up to eight bytes.
    fn number(&mut self, width: u64) -> Result<u64, PickleError> {
        let mut number = 0;
        for place in 0..width {
            let [byte] = self.bytes()?;
            number |= u64::from(byte) << (8 * place);
        }
        Ok(number)
    }

    fn line(&mut self) -> Result<Rc<str>, PickleError> {
        let mut line = Vec::new();
        let read = (&mut self.input).take(LINE_MAX).read_until(b'\n', &mut line)?;
        self.advance(read as u64)?;
        match line.pop() {
            Some(b'\n') => Ok(String::from_utf8_lossy(&line).into()),
            _ if read as u64 == LINE_MAX => Err(PickleError::TooLarge("a line")),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// A text, unless it is too long to name an import.
    fn counted(&mut self, length: u64) -> Result<Option<Rc<str>>, PickleError> {
        if length > TEXT_MAX {
            return self.skip(length).map(|()| None);
        }
        let mut bytes = Vec::new();
        (&mut self.input).take(length).read_to_end(&mut bytes)?;
        self.advance(length)?;
        match bytes.len() as u64 == length {
            true => Ok(Some(String::from_utf8_lossy(&bytes).into())),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    fn skip(&mut self, length: u64) -> Result<(), PickleError> {
        self.advance(length)?;
        match io::copy(&mut (&mut self.input).take(length), &mut io::sink())? == length {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

fn number_of(line: &str) -> Result<u64, PickleError> {
    line.trim().parse().map_err(|_| PickleError::TooLarge("a number of its memo"))
}

/// The text of a line of protocol 0, whose quotes only `S` has. An escape makes another text of it, which then is not
/// known to be harmless.
fn unquoted(line: &Rc<str>) -> Rc<str> {
    let inner = ['\'', '"'].into_iter().find_map(|quote| line.strip_prefix(quote)?.strip_suffix(quote));
    inner.map_or_else(|| Rc::clone(line), Into::into)
}
