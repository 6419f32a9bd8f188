//! Which Python objects a pickle names, found by walking its opcodes and executing none.
//!
//! A pickle can only reach code through a *global*, `module.name`. Refusing a file that names
//! one outside [`is_allowed`] is the rule of `torch.load(weights_only=True)`. Nothing would be
//! executed without it either; but a file that tries is not one to take weights from.
//!
//! Globals are spelled inline (`GLOBAL`) or as the two strings on top of the stack
//! (`STACK_GLOBAL`). For the second, strings are followed through pushes and the memo; a
//! pickle that builds them any other way is refused, as no writer of checkpoints does.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, Read},
};

/// The globals found, as `module.name`.
pub(super) type Globals = BTreeSet<String>;

/// Whether a pickle of tensors may name `global`.
///
/// The list holds what rebuilds tensors, containers, and the plain values that are saved next
/// to weights (a dtype, a device, a NumPy scalar). Whole modules are not in it: their classes
/// are arbitrary code, and `state_dict()` is what should have been saved.
pub(super) fn is_allowed(global: &str) -> bool {
    const ALLOWED: &[&str] = &[
        "__builtin__.bytearray",
        "__builtin__.complex",
        "__builtin__.frozenset",
        "__builtin__.set",
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.frozenset",
        "builtins.set",
        "collections.Counter",
        "collections.OrderedDict",
        "collections.defaultdict",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy.dtype",
        "numpy.ndarray",
        "torch.Size",
        "torch.Tensor",
        "torch._tensor._rebuild_from_type_v2",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.storage.TypedStorage",
        "torch.storage.UntypedStorage",
    ];
    /// Dtypes and typed storages.
    const TORCH: &[&str] = &[
        "BFloat16Storage",
        "BoolStorage",
        "ByteStorage",
        "CharStorage",
        "DoubleStorage",
        "FloatStorage",
        "HalfStorage",
        "IntStorage",
        "LongStorage",
        "ShortStorage",
        "bfloat16",
        "bool",
        "float16",
        "float32",
        "float64",
        "int16",
        "int32",
        "int64",
        "int8",
        "uint16",
        "uint32",
        "uint64",
        "uint8",
    ];
    ALLOWED.contains(&global)
        || global.strip_prefix("torch.").is_some_and(|name| TORCH.contains(&name))
        || global
            .strip_prefix("torch.cuda.")
            .is_some_and(|name| name.ends_with("Storage") && TORCH.contains(&name))
}

/// Adds the globals of the next pickle in `reader`, up to and including its `STOP`.
///
/// # Errors
///
/// If it ends early, or holds an opcode that is unknown or cannot be followed.
pub(super) fn scan(reader: &mut impl BufRead, globals: &mut Globals) -> io::Result<()> {
    let mut scanner = Scanner { reader, globals, memo: BTreeMap::new(), second: None, top: None };
    while scanner.step()? {}
    Ok(())
}

struct Scanner<'a, R> {
    reader: &'a mut R,
    globals: &'a mut Globals,
    /// The strings in the memo; `None` for anything else that was put there.
    memo: BTreeMap<u32, Option<String>>,
    /// The two topmost values of the stack, where they are known to be strings.
    second: Option<String>,
    top: Option<String>,
}

/// What follows an opcode in the stream.
enum Operand {
    None,
    /// So many bytes.
    Fixed(u64),
    /// Text up to a newline.
    Line,
    /// A length of so many bytes, then that many bytes.
    Counted(usize),
}

impl<R: BufRead> Scanner<'_, R> {
    /// Reads one opcode; `false` after `STOP`.
    fn step(&mut self) -> io::Result<bool> {
        match self.byte()? {
            b'.' => return Ok(false),
            b'c' => {
                let global = format!("{}.{}", self.line()?, self.line()?);
                self.globals.insert(global);
                self.push(None);
            }
            0x93 => self.stack_global()?,
            // Strings.
            b'U' | 0x8c => self.string(1)?,
            b'X' | b'T' => self.string(4)?,
            0x8d => self.string(8)?,
            b'V' => {
                let line = self.line()?;
                self.push(Some(line));
            }
            // The memo.
            b'q' => {
                let index = u32::from(self.byte()?);
                self.memo.insert(index, self.top.clone());
            }
            b'r' => {
                let index = self.index()?;
                self.memo.insert(index, self.top.clone());
            }
            b'p' => {
                let index = self.text_index()?;
                self.memo.insert(index, self.top.clone());
            }
            0x94 => {
                let index = u32::try_from(self.memo.len()).map_err(|_| invalid("its memo is too large"))?;
                self.memo.insert(index, self.top.clone());
            }
            b'h' => {
                let index = u32::from(self.byte()?);
                self.get(index);
            }
            b'j' => {
                let index = self.index()?;
                self.get(index);
            }
            b'g' => {
                let index = self.text_index()?;
                self.get(index);
            }
            opcode => {
                self.skip(&operand(opcode)?)?;
                // Neither the value nor the height of the stack is followed: whatever comes
                // next must push its strings anew before a STACK_GLOBAL. PROTO and FRAME do
                // not touch the stack.
                if !matches!(opcode, 0x80 | 0x95) {
                    (self.second, self.top) = (None, None);
                }
            }
        }
        Ok(true)
    }

    fn stack_global(&mut self) -> io::Result<()> {
        let (Some(module), Some(name)) = (self.second.take(), self.top.take()) else {
            return Err(invalid("it builds the name of a Python object in an unusual way"));
        };
        self.globals.insert(format!("{module}.{name}"));
        Ok(())
    }

    fn push(&mut self, value: Option<String>) {
        self.second = std::mem::replace(&mut self.top, value);
    }

    fn get(&mut self, index: u32) {
        let value = self.memo.get(&index).cloned().flatten();
        self.push(value);
    }

    fn string(&mut self, width: usize) -> io::Result<()> {
        let len = self.length(width)?;
        let mut bytes = Vec::new();
        if self.reader.by_ref().take(len).read_to_end(&mut bytes)? as u64 != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.push(String::from_utf8(bytes).ok());
        Ok(())
    }

    fn skip(&mut self, operand: &Operand) -> io::Result<()> {
        let len = match operand {
            Operand::None => 0,
            Operand::Fixed(len) => *len,
            Operand::Line => return self.line().map(drop),
            Operand::Counted(width) => self.length(*width)?,
        };
        if io::copy(&mut self.reader.by_ref().take(len), &mut io::sink())? != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn length(&mut self, width: usize) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.reader.read_exact(&mut bytes[..width])?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn index(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.reader.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn text_index(&mut self) -> io::Result<u32> {
        self.line()?.trim().parse().map_err(|_| invalid("a memo index is not a number"))
    }

    fn line(&mut self) -> io::Result<String> {
        /// Far longer than any name; a file without newlines is not read whole.
        const LONGEST: u64 = 1 << 20;
        let mut line = Vec::new();
        self.reader.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Err(invalid("a line does not end"));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map_err(|_| invalid("a line is not UTF-8"))
    }
}

/// The operand of an opcode that neither pushes a string nor uses the memo.
fn operand(opcode: u8) -> io::Result<Operand> {
    Ok(match opcode {
        // MARK ( POP 0 POP_MARK 1 DUP 2 NONE N REDUCE R BUILD b DICT d LIST l TUPLE t SETITEM s
        // APPEND a EMPTY_* APPENDS e SETITEMS u BINPERSID Q and protocols 2, 4 and 5.
        b'('
        | b'0'
        | b'1'
        | b'2'
        | b'N'
        | b'R'
        | b'b'
        | b'd'
        | b'l'
        | b't'
        | b's'
        | b'a'
        | b')'
        | b']'
        | b'}'
        | b'e'
        | b'u'
        | b'Q'
        | 0x81
        | 0x85..=0x89
        | 0x8f..=0x92 => Operand::None,
        b'K' | 0x80 => Operand::Fixed(1),
        b'M' => Operand::Fixed(2),
        b'J' => Operand::Fixed(4),
        b'G' | 0x95 => Operand::Fixed(8),
        b'I' | b'L' | b'F' | b'P' => Operand::Line,
        b'C' | 0x8a => Operand::Counted(1),
        b'B' | 0x8b => Operand::Counted(4),
        0x8e | 0x96 => Operand::Counted(8),
        _ => {
            return Err(invalid(&format!(
                "its pickle holds the opcode 0x{opcode:02x}, which is not accepted"
            )));
        }
    })
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_global() {
        check(b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00lsq\x01\x85q\x02Rq\x03.", &["posix.system"]);
    }

    #[test]
    fn stack_global_of_memoised_strings() {
        check(
            b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94h\x00h\x01\x93.",
            &["posix.system"],
        );
    }

    #[test]
    fn a_name_from_elsewhere_on_the_stack_is_refused() {
        let pickle = b"\x80\x04\x8c\x05posix\x8c\x06systemNN00\x93.";
        assert!(scan(&mut &pickle[..], &mut Globals::new()).is_err());
    }

    #[test]
    fn obsolete_instance_opcodes_are_refused() {
        assert!(scan(&mut &b"(iposix\nsystem\n."[..], &mut Globals::new()).is_err());
    }

    #[test]
    fn a_pickle_that_does_not_stop_is_refused() {
        assert!(scan(&mut &b"\x80\x02N"[..], &mut Globals::new()).is_err());
        assert!(scan(&mut &b"\x80\x02X\xff\xff\xff\xffab"[..], &mut Globals::new()).is_err());
    }

    #[test]
    fn what_tensors_need_is_allowed() {
        assert!(is_allowed("torch.FloatStorage") && is_allowed("torch._utils._rebuild_tensor_v2"));
        assert!(
            !is_allowed("posix.system") && !is_allowed("torch.load") && !is_allowed("torch.cuda.float32")
        );
    }

    #[track_caller]
    fn check(pickle: &[u8], expected: &[&str]) {
        let mut globals = Globals::new();
        scan(&mut &pickle[..], &mut globals).unwrap();
        assert_eq!(globals.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }
}
