//! Running programs: each is shown before it runs, and finds this project's own tools first.

use crate::project;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// A command that runs in the checkout with this project's tools in front of PATH.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Result<Command> {
    let mut command = Command::new(name);
    command.current_dir(project::path("")).env("PATH", project::search_path()?);
    Ok(command)
}

/// `cargo` for this machine's own code.
pub(crate) fn cargo() -> Result<Command> {
    program("cargo")
}

/// Takes out of the environment what would replace the flags that a build depends on: RUSTFLAGS overrides
/// `target.….rustflags`, so a wasm build under it would silently lose its SIMD.
pub(crate) fn without_rust_flags(command: &mut Command) -> &mut Command {
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
    command
}

/// Runs `command` on this terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    eprintln!("$ {line}");
    // Standard output may be read by a shell (`cargo xtask env`): what the tools say goes to standard error.
    let status = command.stdout(std::io::stderr()).status().with_context(|| format!("starting {line}"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// What `command` writes to its standard output, or its standard error if it fails.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let output = command.output().with_context(|| format!("starting {line}"))?;
    if !output.status.success() {
        bail!("{line}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command`, showing what it writes while it writes it; whether it succeeded, and what it wrote.
pub(crate) fn watch(command: Command) -> Result<(bool, String)> {
    watch_as("", command)
}

/// `watch` for one of several commands at once: each line is shown after `prefix`.
pub(crate) fn watch_as(prefix: &str, mut command: Command) -> Result<(bool, String)> {
    let line = shown(&command);
    println!("{prefix}$ {line}");
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("starting {line}"))?;
    // The command holds the pipe's writing ends; the reader sees the end only once they are closed.
    drop(command);
    let mut text = String::new();
    let mut stdout = std::io::stdout();
    for output in BufReader::new(reader).split(b'\n') {
        let output = output?;
        let output = String::from_utf8_lossy(&output);
        text.push_str(&output);
        text.push('\n');
        writeln!(stdout, "{prefix}{output}")?;
    }
    Ok((child.wait()?.success(), text))
}

/// Runs all `commands` at once, each command's output shown when it ends; fails if one fails.
pub(crate) fn run_together(commands: Vec<Command>) -> Result<()> {
    let runs: Vec<_> = commands
        .into_iter()
        .map(|mut command| {
            let line = shown(&command);
            eprintln!("$ {line}");
            std::thread::spawn(move || (line, command.stdin(Stdio::null()).output()))
        })
        .collect();
    let mut failed = Vec::new();
    for run in runs {
        let (line, output) = run.join().expect("the thread only waits for a process");
        let output = output.with_context(|| format!("starting {line}"))?;
        eprint!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            failed.push(format!("{line}: {}", output.status));
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("\n")) }
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| {
        let word = word.to_string_lossy();
        let plain = word.chars().all(|c| c.is_alphanumeric() || "-_=./:,+@".contains(c));
        let quote = if word.contains('\'') { '"' } else { '\'' };
        if plain { word.into_owned() } else { format!("{quote}{word}{quote}") }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wasm_build_sees_no_rust_flags() {
        let mut command = Command::new("cargo");
        without_rust_flags(&mut command);
        let removed = |name: &str| command.get_envs().any(|(key, value)| key == name && value.is_none());
        assert!(removed("RUSTFLAGS") && removed("CARGO_ENCODED_RUSTFLAGS"));
    }

    #[test]
    fn what_a_command_writes_is_kept_with_its_success() -> Result<()> {
        for prefix in ["", "shell: "] {
            let mut shell = program("sh")?;
            shell.args(["-c", "echo one; echo two >&2; exit 3"]);
            assert_eq!(
                watch_as(prefix, shell)?,
                (false, "one\ntwo\n".to_owned()),
                "the prefix is shown, not kept"
            );
        }
        Ok(())
    }

    #[test]
    fn commands_are_shown_as_one_types_them() {
        let mut command = Command::new("cargo");
        command.args(["test", "--config", "a=['b']", "two words"]);
        assert_eq!(shown(&command), "cargo test --config \"a=['b']\" 'two words'");
    }
}
