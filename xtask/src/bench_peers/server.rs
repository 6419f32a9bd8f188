//! A process that does works on demand.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::command::Outcome;

/// One side. It ends when it is dropped.
pub(super) struct Server {
    pub(super) name: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Server {
    /// Starts it and waits until it has loaded its checkpoint.
    pub(super) fn start(name: &str, mut command: Command) -> Outcome<Self> {
        let failed = |what: &str| format!("{name} did not start: {what}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&error.to_string()))?;
        let input = child.stdin.take().ok_or_else(|| failed("no input"))?;
        let output = BufReader::new(child.stdout.take().ok_or_else(|| failed("no output"))?);
        let mut server = Self { name: name.to_owned(), child, input, output };
        // What its libraries print on the way is passed over.
        while !server.line()?.starts_with("ready ") {}
        Ok(server)
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err(format!("{} ended; what it said is above", self.name)),
            Ok(_) => Ok(line),
            Err(error) => Err(format!("{}: {error}", self.name)),
        }
    }

    fn asked(&mut self, command: &str) -> Outcome<String> {
        writeln!(self.input, "{command}").map_err(|error| format!("{}: {error}", self.name))?;
        self.line()
    }

    /// Milliseconds and a checksum of the result.
    pub(super) fn time(&mut self, command: &str) -> Outcome<(f64, f64)> {
        let line = self.asked(command)?;
        let mut numbers = line.split_whitespace().map_while(|word| word.parse().ok());
        match (numbers.next(), numbers.next()) {
            (Some(time), Some(checksum)) => Ok((time, checksum)),
            _ => Err(format!("{} answered `{}` to `{command}`", self.name, line.trim())),
        }
    }

    /// The most memory that it ever held, in KiB.
    pub(super) fn peak(&mut self) -> Outcome<f64> {
        let line = self.asked("peak")?;
        line.trim().parse().map_err(|_| format!("{} answered `{}` to `peak`", self.name, line.trim()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, and nobody is left to tell if it cannot be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
