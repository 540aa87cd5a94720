//! Frames of scripts, which interpreters run: functions that are objects in a process's memory.
//!
//! What names such an object arrives once, when a stack first has it, under the object's address and a
//! checksum of what it was. Names may come after the stacks that need them, or never: a frame is kept as
//! what it is, and named when everything is in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use crate::hotspot;
use crate::interpreters::python::{self, Lines};

/// Whose frames they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// CPython.
    Python,
    /// V8.
    JavaScript,
    /// HotSpot.
    Java,
}

impl Runtime {
    /// All of them, in the order of `enum runtime` in bpf/profile.h.
    pub const ALL: [Self; 3] = [Self::Python, Self::JavaScript, Self::Java];

    /// What people call the language; also the name of its mapping, in brackets and lower case.
    pub fn language(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::JavaScript => "JavaScript",
            Self::Java => "Java",
        }
    }
}

/// Why frames are missing where an interpreter's loop ran, or have no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Missing {
    /// The interpreter knows no such thread: it is being made, or ends.
    Thread,
    /// A frame could not be read.
    Frame,
    /// What a frame executes could not be read, or is no code.
    Code,
    /// The name could not be read, or the object was another one by then.
    Name,
    /// There was other code at the address a moment before.
    Replaced,
}

impl Missing {
    /// A few words for people; also the end of the frame's name.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Thread => "thread not found",
            Self::Frame => "frame not readable",
            Self::Code => "not a code object",
            Self::Name => "name not read",
            Self::Replaced => "code was replaced",
        }
    }
}

/// A code object as it was at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodeKey {
    /// Process.
    pub tgid: u32,
    /// Whose it is.
    pub runtime: Runtime,
    /// Its address.
    pub code: u64,
    /// Of what it was.
    pub checksum: u64,
}

/// What names a code object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Code {
    /// Qualified name: `Class.method`.
    pub name: String,
    /// Path of the source.
    pub file: String,
    /// Line of the definition.
    pub first_line: u32,
    /// How its table of lines is written.
    pub lines: Lines,
    /// The table.
    pub table: Vec<u8>,
}

/// A frame, as the walk found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    /// In a code object, at an instruction.
    In(CodeKey, u32),
    /// There is none.
    Missing(Runtime, Missing),
}

impl Frame {
    /// Whose it is.
    pub fn runtime(&self) -> Runtime {
        match self {
            Self::In(key, _) => key.runtime,
            Self::Missing(runtime, _) => *runtime,
        }
    }
}

/// A frame's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// Of the function.
    pub function: Rc<str>,
    /// Path of its source.
    pub file: Rc<str>,
    /// Line of its definition.
    pub first_line: u32,
    /// Line that ran; 0 if that is not known.
    pub line: u32,
}

/// All frames of scripts so far, and what names them.
#[derive(Debug, Default)]
pub struct Scripts {
    codes: HashMap<CodeKey, Rc<Code>>,
    /// Codes that are alike in many processes are one.
    distinct: HashMap<Rc<Code>, ()>,
    frames: Vec<Frame>,
    by_frame: HashMap<Frame, u64>,
    /// The first of the frames that have the same name: workers of one program have many.
    by_place: HashMap<(*const Code, u32), u64>,
    /// Seen in stacks, and not named yet; each once.
    unknown: Vec<CodeKey>,
    asked: HashSet<CodeKey>,
    /// Functions at places of compiled code, innermost first.
    places: HashMap<CodeKey, Vec<Name>>,
}

impl Scripts {
    /// Takes what names a code object.
    pub fn learn(&mut self, key: CodeKey, code: Code) {
        let code = Rc::new(code);
        let code = match self.distinct.get_key_value(&code) {
            Some((known, ())) => Rc::clone(known),
            None => {
                self.distinct.insert(Rc::clone(&code), ());
                code
            }
        };
        self.codes.insert(key, code);
    }

    /// A number for a place in compiled code, of which the method that was compiled may be known by its name.
    pub fn place(&mut self, key: CodeKey, method: Option<&Rc<str>>) -> u64 {
        let number = self.number(Frame::In(key, 0));
        if let (Some(method), false) = (method, self.places.contains_key(&key)) {
            let name = Name { function: Rc::clone(method), file: "".into(), first_line: 0, line: 0 };
            self.places.insert(key, vec![name]);
        }
        number
    }

    /// Takes the functions at a place in compiled code, innermost first.
    pub fn learn_place(&mut self, key: CodeKey, names: Vec<Name>) {
        self.places.insert(key, names);
    }

    /// A number for a frame: the same for frames with the same name, as far as that is known yet.
    pub fn number(&mut self, frame: Frame) -> u64 {
        if let Some(&known) = self.by_frame.get(&frame) {
            return known;
        }
        let place = match &frame {
            Frame::In(key, instruction) => self.codes.get(key).map(|code| {
                let line = code.line(*instruction);
                (Rc::as_ptr(code), line)
            }),
            Frame::Missing(..) => None,
        };
        if let (None, Frame::In(key, _)) = (place, frame)
            && self.asked.insert(key)
        {
            self.unknown.push(key);
        }
        let next = self.frames.len() as u64;
        let number = place.map_or(next, |place| *self.by_place.entry(place).or_insert(next));
        if number == next {
            self.frames.push(frame);
        }
        self.by_frame.insert(frame, number);
        number
    }

    /// The names of a frame by its number, innermost function first.
    ///
    /// # Errors
    /// If it has none.
    pub fn names(&self, number: u64) -> Result<Vec<Name>, (Runtime, Missing)> {
        let frame = usize::try_from(number).ok().and_then(|at| self.frames.get(at));
        match frame {
            Some(Frame::In(key, _)) if self.places.contains_key(key) => Ok(self.places[key].clone()),
            Some(Frame::In(key, instruction)) => {
                let code = self.codes.get(key).ok_or((key.runtime, Missing::Name))?;
                Ok(vec![Name {
                    function: code.name.as_str().into(),
                    file: code.file.as_str().into(),
                    first_line: code.first_line,
                    line: code.line(*instruction),
                }])
            }
            Some(&Frame::Missing(runtime, why)) => Err((runtime, why)),
            None => Err((Runtime::Python, Missing::Name)),
        }
    }

    /// Code objects in stacks whose names have not come, since the last call.
    pub fn take_unknown(&mut self) -> Vec<CodeKey> {
        let mut unknown = std::mem::take(&mut self.unknown);
        unknown.retain(|key| !self.codes.contains_key(key));
        unknown
    }
}

impl Code {
    /// The line of an instruction, 0 if it has none.
    fn line(&self, instruction: u32) -> u32 {
        if self.lines == Lines::Bytecode {
            return hotspot::methods::line(&self.table, instruction.into()).unwrap_or(0);
        }
        python::line(self.lines, &self.table, self.first_line, instruction.into()).unwrap_or(0)
    }
}

/// The samples with frames of scripts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Samples in which every frame has a name.
    pub named: u64,
    /// Others, by what the first frame that has none lacks.
    pub unnamed: BTreeMap<Missing, u64>,
}
