//! `burn-lens completions`

use clap::CommandFactory as _;
use serde_json::json;

use crate::{
    args::{Cli, CompletionsArgs},
    report::Report,
};

/// The completion script for a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> Report {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "burn-lens", &mut script);
    let text = String::from_utf8_lossy(&script).into_owned();
    let json = json!({ "shell": args.shell.to_string(), "script": text });
    Report { text, json }
}
