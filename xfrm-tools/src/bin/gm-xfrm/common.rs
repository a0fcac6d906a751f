//! What the commands share: failures, and files that are read and written.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use gm_api::sad::Sad;
use gm_xfrm::output::{Output, Secrecy, is_stdio, same_file};
use serde::Serialize;
use zeroize::Zeroizing;

/// An error's line for people, and the exit code that goes with it.
pub struct Failure {
    pub code: u8,
    pub line: String,
}

pub fn unreadable(line: impl ToString) -> Failure {
    Failure {
        code: 1,
        line: line.to_string(),
    }
}

pub fn misuse(line: impl ToString) -> Failure {
    Failure {
        code: 2,
        line: line.to_string(),
    }
}

/// A line on standard error; there is nobody to tell when that fails.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "gm-xfrm: {line}");
}

/// Text of at most `limit` bytes, wiped when dropped. Pieces that a growing
/// buffer leaves behind are not there: it is given its room at once.
pub fn read_secret(path: &Path, limit: usize) -> Result<Zeroizing<String>, Failure> {
    let name = input_name(path);
    let mut text = Zeroizing::new(String::with_capacity(limit + 1));
    let mut input = open_input(path)?.take(limit as u64);
    match input.read_to_string(&mut text) {
        Ok(read) if read == limit => Err(misuse(format!("{name}: longer than any such file"))),
        Ok(_) => Ok(text),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            Err(misuse(format!("{name}: not text")))
        }
        Err(e) => Err(unreadable(format!("cannot read {name}: {e}"))),
    }
}

/// Standard input can be read once.
pub fn one_stdin(sad: &Path, input: &Path) -> Result<(), Failure> {
    if is_stdio(sad) && is_stdio(input) {
        return Err(misuse(
            "--sad and the input are both -; give one of them a name",
        ));
    }
    Ok(())
}

/// An output must not be a file that is read or another output.
pub fn distinct(option: &str, path: &Path, taken: &[(&str, &PathBuf)]) -> Result<(), Failure> {
    for (name, other) in taken {
        // - is standard input for what is read and standard output for this.
        if same_file(path, other) && !(is_stdio(path) && *name != "--out") {
            let line = format!("{option} and {name} are one file; give {option} another name");
            return Err(misuse(line));
        }
    }
    Ok(())
}

pub fn load(path: &Path) -> Result<Sad, Failure> {
    let sad = if is_stdio(path) {
        // A file of SAs is text of some kilobytes; what is longer is none.
        let text = read_secret(path, 16 << 20)?;
        Sad::parse(&input_name(path), &text)
    } else {
        Sad::load(path)
    };
    sad.map_err(|e| {
        if e.is_read() {
            unreadable(e)
        } else {
            misuse(e)
        }
    })
}

pub fn input_name(path: &Path) -> String {
    if is_stdio(path) {
        "standard input".to_string()
    } else {
        path.display().to_string()
    }
}

pub fn open_input(path: &Path) -> Result<Box<dyn Read>, Failure> {
    if is_stdio(path) {
        return Ok(Box::new(io::stdin()));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(BufReader::with_capacity(1 << 16, file))),
        Err(e) => Err(unreadable(format!("cannot read {}: {e}", path.display()))),
    }
}

pub fn create(path: &Path, secrecy: Secrecy) -> Result<Output, Failure> {
    Output::create(path, secrecy)
        .map_err(|e| unreadable(format!("cannot write {}: {e}", path.display())))
}

pub fn finish(output: Output, path: &Path) -> Result<(), Failure> {
    output
        .finish()
        .map_err(|e| unreadable(format!("cannot write {}: {e}", path.display())))
}

/// Text to standard output. A reader that has gone is no error.
pub fn print(text: &str) -> Result<(), Failure> {
    print_to_reader(text).map(|_| ())
}

/// The same for what has no end; false: the reader has gone.
pub fn print_to_reader(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(unreadable(format!("cannot write to standard output: {e}"))),
    }
}

/// A JSON object on a line of its own.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&json_line(value)?)
}

/// A JSON object with the end of its line, wiped when dropped.
pub fn json_line(value: &impl Serialize) -> Result<Zeroizing<String>, Failure> {
    // Its length first: a buffer that grows leaves pieces behind, which may be
    // keys.
    let mut length = Length(0);
    serde_json::to_writer(&mut length, value).map_err(unreadable)?;
    let mut line = Zeroizing::new(Vec::with_capacity(length.0 + 1));
    serde_json::to_writer(&mut *line, value).map_err(unreadable)?;
    line.push(b'\n');
    let line = String::from_utf8(std::mem::take(&mut *line)).map_err(unreadable)?;
    Ok(Zeroizing::new(line))
}

/// Counts what is written.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
