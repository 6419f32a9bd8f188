//! Speed and memory beside Hugging Face transformers and TransformerLens.
//!
//! Both sides hold the same random checkpoint and do the same work on the same tokens, in turn,
//! so that whatever else the machine does hits both. What is reported is the ratio of each pair
//! of neighboring times: their median and quartiles. Checksums of the results are compared
//! before anything is timed.

mod server;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Outcome, cargo, metadata, root, run as execute};
use server::Server;
use table::{Line, Ratios};

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    HuggingFace,
    TransformerLens,
}

impl Peer {
    fn short(self) -> &'static str {
        match self {
            Self::HuggingFace => "hf",
            Self::TransformerLens => "tl",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::HuggingFace => "Hugging Face, fused attention",
            Self::TransformerLens => "TransformerLens",
        }
    }
}

/// One line of the table.
struct Work {
    name: &'static str,
    batch: usize,
    pos: usize,
    peer: Peer,
    /// Whether to measure the memory of a process that does nothing else.
    memory: bool,
}

const fn work(name: &'static str, batch: usize, pos: usize, peer: Peer) -> Work {
    Work { name, batch, pos, peer, memory: false }
}

const WORKS: &[Work] = &[
    work("logits", 1, 1024, Peer::HuggingFace),
    work("logits", 8, 128, Peer::HuggingFace),
    work("logits", 1, 64, Peer::HuggingFace),
    work("logits", 1, 16, Peer::HuggingFace),
    work("logits", 1, 1024, Peer::TransformerLens),
    work("logits", 8, 128, Peer::TransformerLens),
    Work { name: "cache", batch: 1, pos: 1024, peer: Peer::TransformerLens, memory: true },
    Work { name: "cache", batch: 8, pos: 128, peer: Peer::TransformerLens, memory: true },
    work("cache", 1, 128, Peer::TransformerLens),
    work("cache-resid", 8, 128, Peer::TransformerLens),
    work("last", 8, 128, Peer::HuggingFace),
    Work { name: "loss", batch: 8, pos: 1024, peer: Peer::HuggingFace, memory: true },
    work("generate", 1, 128, Peer::HuggingFace),
    work("generate", 8, 128, Peer::HuggingFace),
    work("decode", 1, 128, Peer::HuggingFace),
    work("backward", 8, 128, Peer::TransformerLens),
];

/// Pairs of our own works: the second is what the first is divided by.
const OWN: &[(&str, &str, usize, usize)] = &[
    ("cache", "logits", 1, 1024),
    ("cache", "logits", 8, 128),
    ("cache-resid", "logits", 8, 128),
    ("last", "logits", 8, 128),
];

/// Two results agree if their checksums do to this: f32 through twelve layers.
const AGREE: f64 = 1e-3;

/// What the command line asks for.
struct Settings<'a> {
    python: Option<&'a str>,
    shape: &'a str,
    only: Option<&'a str>,
    rounds: usize,
    threads: &'a str,
}

impl<'a> Settings<'a> {
    fn new(args: &[&'a str]) -> Outcome<Self> {
        let mut settings = Self { python: None, shape: "gpt2-small", only: None, rounds: 7, threads: "2" };
        let mut args = args.iter();
        while let Some(&name) = args.next() {
            let value = args.next().ok_or_else(|| format!("`{name}` needs a value"))?;
            match name {
                "--python" => settings.python = Some(value),
                "--shape" => settings.shape = value,
                "--only" => settings.only = Some(value),
                "--threads" => settings.threads = value,
                "--rounds" => {
                    settings.rounds =
                        value.parse().ok().filter(|&rounds| rounds > 0).ok_or_else(|| {
                            format!("`--rounds` takes a number of at least 1, not `{value}`")
                        })?;
                }
                _ => return Err(format!("unknown option `{name}`; `cargo xtask help` lists them")),
            }
        }
        if !["gpt2-small", "llama-160m"].contains(&settings.shape) {
            return Err(format!("unknown shape `{}`: expected gpt2-small or llama-160m", settings.shape));
        }
        Ok(settings)
    }

    fn takes(&self, name: &str) -> bool {
        self.only.is_none_or(|only| only.split(',').any(|only| only == name))
    }
}

/// Installs the peers, makes the checkpoint, builds our side and measures.
pub(crate) fn run(args: &[&str]) -> Outcome {
    let settings = Settings::new(args)?;
    let metadata = metadata()?;
    let target = PathBuf::from(metadata["target_directory"].as_str().unwrap_or("target"));
    let folder = target.join("bench-peers");
    std::fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let python = match settings.python {
        Some(python) => PathBuf::from(python),
        None => installed(&folder)?,
    };
    let peers = root().join("benches/peers");
    execute(Command::new(&python).arg(peers.join("make_checkpoints.py")).arg(&folder).arg(settings.shape))?;
    execute(&mut cargo(["build", "--release", "-p", "burn-lens-benches", "--bin", "bench-peer"]))?;
    let sides = Sides {
        ours: target.join("release/bench-peer"),
        python,
        script: peers.join("peer_server.py"),
        checkpoint: folder.join(settings.shape),
        threads: settings.threads.to_owned(),
    };
    let lines = measured(&sides, &settings)?;
    print!("{}", table::markdown(settings.shape, &lines));
    Ok(())
}

/// A virtual environment with the pinned peers.
fn installed(folder: &Path) -> Outcome<PathBuf> {
    let environment = folder.join("venv");
    let python = environment.join("bin/python");
    if !python.exists() {
        execute(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    }
    let requirements = root().join("benches/peers/requirements.txt");
    execute(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements))?;
    Ok(python)
}

/// Where both sides are.
struct Sides {
    ours: PathBuf,
    python: PathBuf,
    script: PathBuf,
    checkpoint: PathBuf,
    threads: String,
}

impl Sides {
    fn ours(&self) -> Outcome<Server> {
        let mut command = Command::new(&self.ours);
        command.arg(&self.checkpoint).env("RAYON_NUM_THREADS", &self.threads);
        Server::start("burn-lens", command)
    }

    fn peer(&self, peer: Peer) -> Outcome<Server> {
        let mut command = Command::new(&self.python);
        command.arg(&self.script).arg(peer.short()).arg(&self.checkpoint).arg(&self.threads);
        Server::start(peer.name(), command)
    }
}

fn measured(sides: &Sides, settings: &Settings<'_>) -> Outcome<Vec<Line>> {
    let mut lines = Vec::new();
    let mut ours = sides.ours()?;
    for peer in [Peer::HuggingFace, Peer::TransformerLens] {
        let works: Vec<&Work> =
            WORKS.iter().filter(|work| work.peer == peer && settings.takes(work.name)).collect();
        if works.is_empty() {
            continue;
        }
        let mut theirs = sides.peer(peer)?;
        for work in works {
            let command = format!("time {} {} {}", work.name, work.batch, work.pos);
            let mut ratios = beside(&command, settings.rounds, &mut ours, &mut theirs)?;
            if work.memory {
                ratios.memory = Some([alone(sides.ours()?, &command)?, alone(sides.peer(peer)?, &command)?]);
            }
            lines.push(Line::new(work.name, work.batch, work.pos, peer.name(), ratios));
        }
    }
    for &(name, base, batch, pos) in OWN.iter().filter(|own| settings.takes(own.0)) {
        let (first, second) = (format!("time {name} {batch} {pos}"), format!("time {base} {batch} {pos}"));
        let mut ratios = Ratios::default();
        for round in 0..=settings.rounds {
            let pair = [ours.time(&first)?, ours.time(&second)?];
            if round > 0 {
                ratios.push(pair.map(|(time, _)| time));
            }
        }
        lines.push(Line::new(name, batch, pos, &format!("our own {base}"), ratios));
    }
    Ok(lines)
}

/// Times both sides in turn; the first round warms up and compares the results.
fn beside(command: &str, rounds: usize, ours: &mut Server, theirs: &mut Server) -> Outcome<Ratios> {
    let mut ratios = Ratios::default();
    for round in 0..=rounds {
        let ((our_time, our_sum), (their_time, their_sum)) = (ours.time(command)?, theirs.time(command)?);
        if round == 0 {
            let off = (our_sum - their_sum).abs() / their_sum.abs().max(1e-30);
            if off.is_nan() || off > AGREE {
                return Err(format!("`{command}` gives {our_sum}, but {} gives {their_sum}", theirs.name));
            }
        } else {
            ratios.push([our_time, their_time]);
        }
    }
    Ok(ratios)
}

/// The most memory that a process takes that does one work once, in KiB.
fn alone(mut server: Server, command: &str) -> Outcome<f64> {
    server.time(command)?;
    server.peak()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        assert_eq!(Settings::new(&["--rounds", "3"]).map(|s| s.rounds), Ok(3));
        assert!(Settings::new(&["--rounds", "0"]).is_err());
        assert!(Settings::new(&["--rounds"]).is_err());
        assert!(Settings::new(&["--shape", "gpt3"]).is_err());
        assert!(Settings::new(&["--only", "logits,loss"]).is_ok_and(|s| s.takes("loss") && !s.takes("last")));
    }
}
