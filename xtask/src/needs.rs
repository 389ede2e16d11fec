//! What the tests need and what lies outside the checkout: parts of the Rust toolchain, browsers and their drivers.
//!
//! They are installed only where that was allowed; otherwise everything that is missing is named at once, with the
//! commands that bring it. What goes below `target/` and into `node_modules/` is the matter of [`crate::tools`].

use crate::{command, project};
use anyhow::{Result, bail};
use std::path::Path;

/// What rustc must be able to build for.
pub(crate) const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// One thing that this machine must have.
#[derive(Debug, PartialEq)]
pub(crate) struct Need {
    what: &'static str,
    installer: Installer,
    /// Its name there.
    package: &'static str,
    /// The names that its program goes by.
    programs: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Installer {
    /// `rustup target add`
    RustTarget,
    /// `rustup component add`
    RustComponent,
    /// The package manager of Debian and Ubuntu.
    AptGet,
}

const WASM: Need = Need {
    what: "Rust's library for wasm32-unknown-unknown",
    installer: Installer::RustTarget,
    package: WASM_TARGET,
    programs: &[],
};

const RUSTFMT: Need =
    Need { what: "rustfmt", installer: Installer::RustComponent, package: "rustfmt", programs: &["rustfmt"] };

const CLIPPY: Need = Need {
    what: "clippy",
    installer: Installer::RustComponent,
    package: "clippy",
    programs: &["cargo-clippy"],
};

const CHROMIUM: Need = Need {
    what: "Chromium or Chrome",
    installer: Installer::AptGet,
    package: "chromium",
    programs: &["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"],
};

const CHROMEDRIVER: Need = Need {
    what: "chromedriver",
    installer: Installer::AptGet,
    package: "chromium-driver",
    programs: &["chromedriver"],
};

const FIREFOX: Need = Need {
    what: "Firefox",
    installer: Installer::AptGet,
    package: "firefox-esr",
    programs: &["firefox", "firefox-esr"],
};

/// A third engine, tested where it is there; its browser has no headless mode, and so needs a display.
const WEBKIT: [Need; 2] = [
    Need {
        what: "WebKitWebDriver",
        installer: Installer::AptGet,
        package: "webkit2gtk-driver",
        programs: &["WebKitWebDriver"],
    },
    Need { what: "Xvfb", installer: Installer::AptGet, package: "xvfb", programs: &["Xvfb"] },
];

/// Every step of `cargo xtask test` with what it needs, in the order in which the steps run.
pub(crate) const STEPS: [(&str, &[Need]); 9] = [
    ("fmt", &[RUSTFMT]),
    ("clippy", &[CLIPPY, WASM]),
    ("doc", &[WASM]),
    ("native", &[]),
    ("deny", &[]),
    ("types", &[]),
    ("engine", &[]),
    ("wasm", &[WASM, CHROMIUM, CHROMEDRIVER, FIREFOX]),
    ("browser", &[WASM, CHROMIUM, CHROMEDRIVER, FIREFOX]),
];

/// Makes sure that what `steps` need is there: with `install` by installing it, else by saying what to do.
pub(crate) fn require(steps: &[&str], install: bool) -> Result<()> {
    if install {
        install_all(&missing(of(steps)))?;
        if steps.contains(&"browser")
            && project::find_program(&["apt-get"]).is_some()
            && let Err(error) = install_all(&missing(WEBKIT.iter().collect()))
        {
            println!("{error:#}\nWebKit is optional: its tests will be skipped.");
        }
    }
    let missing = missing(of(steps));
    if missing.is_empty() { Ok(()) } else { bail!("{}", advice(&missing)) }
}

/// Makes sure that rustc can build for wasm32, by rustup.
pub(crate) fn add_wasm_target() -> Result<()> {
    install_all(&missing(vec![&WASM]))
}

/// What `steps` need, each thing once.
fn of(steps: &[&str]) -> Vec<&'static Need> {
    let mut all: Vec<&'static Need> = Vec::new();
    for (_, needs) in STEPS.iter().filter(|(step, _)| steps.contains(step)) {
        for need in *needs {
            if !all.contains(&need) {
                all.push(need);
            }
        }
    }
    all
}

fn missing(needs: Vec<&'static Need>) -> Vec<&'static Need> {
    needs.into_iter().filter(|need| !need.exists()).collect()
}

/// What is missing, how to get it, and what runs without it.
fn advice(missing: &[&Need]) -> String {
    let what: Vec<&str> = missing.iter().map(|need| need.what).collect();
    let lines: Vec<String> =
        commands(missing).iter().map(|command| format!("    {}\n", command.join(" "))).collect();
    let elsewhere = match missing.iter().any(|need| need.installer == Installer::AptGet) {
        true => " apt-get is Debian's: elsewhere install the browsers by hand, so that they are on PATH.",
        false => "",
    };
    let without = STEPS
        .iter()
        .filter(|(_, needs)| needs.iter().all(|need| !missing.contains(&need)))
        .map(|step| step.0);
    format!(
        "missing: {}. It lies outside this checkout; install it with\n\n{}\nor let `cargo xtask test --install` \
         do it.{elsewhere} What needs none of it runs with\n\n    cargo xtask test {}",
        what.join(", "),
        lines.concat(),
        without.collect::<Vec<_>>().join(" ")
    )
}

/// The commands that install `missing`, one for each installer.
fn commands(missing: &[&Need]) -> Vec<Vec<&'static str>> {
    let by = |installer: Installer, start: &[&'static str]| {
        let packages: Vec<_> =
            missing.iter().filter(|need| need.installer == installer).map(|need| need.package).collect();
        (!packages.is_empty()).then(|| [start, &packages].concat())
    };
    [
        by(Installer::RustTarget, &["rustup", "target", "add"]),
        by(Installer::RustComponent, &["rustup", "component", "add"]),
        by(Installer::AptGet, &["sudo", "apt-get", "install"]),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Installs what is missing; what no installer of this machine can bring stays missing.
fn install_all(missing: &[&Need]) -> Result<()> {
    for words in commands(missing) {
        match words.as_slice() {
            ["sudo", "apt-get", "install", packages @ ..] => apt_get(packages)?,
            [program, arguments @ ..] => command::run(command::program(program)?.args(arguments))?,
            [] => {}
        }
    }
    Ok(())
}

/// Installs packages, through sudo where this is not root, and where there is an apt-get.
fn apt_get(packages: &[&str]) -> Result<()> {
    if project::find_program(&["apt-get"]).is_none() {
        return Ok(());
    }
    println!("Installing with apt-get: {}", packages.join(" "));
    let root = command::capture(command::program("id")?.arg("-u"))?.trim() == "0";
    let apt_get = |arguments: &[&str]| -> Result<()> {
        let mut apt_get = command::program(if root { "apt-get" } else { "sudo" })?;
        if !root {
            apt_get.arg("apt-get");
        }
        command::run(apt_get.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    apt_get(&["update", "--quiet"])?;
    apt_get(&[&["install", "--yes", "--quiet", "--no-install-recommends"], packages].concat())
}

impl Need {
    fn exists(&self) -> bool {
        match self.installer {
            Installer::AptGet => project::find_program(self.programs).is_some(),
            // rustup leaves a program in place of every component, which fails where the component is missing.
            Installer::RustComponent => self.programs.iter().any(|program| {
                command::program(program).is_ok_and(|mut run| command::capture(run.arg("--version")).is_ok())
            }),
            Installer::RustTarget => command::program("rustc")
                .and_then(|mut rustc| {
                    command::capture(rustc.args(["--print", "target-libdir", "--target", self.package]))
                })
                .is_ok_and(|folder| Path::new(folder.trim()).is_dir()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_needed_once_and_some_steps_need_nothing() {
        assert_eq!(of(&["clippy", "doc", "wasm"]), [&CLIPPY, &WASM, &CHROMIUM, &CHROMEDRIVER, &FIREFOX]);
        assert_eq!(of(&["native", "deny", "types", "engine"]), Vec::<&Need>::new());
    }

    #[test]
    fn what_is_missing_is_named_at_once_with_the_commands_that_bring_it() {
        let advice = advice(&[&RUSTFMT, &WASM, &CLIPPY, &FIREFOX]);
        for line in [
            "rustup target add wasm32-unknown-unknown",
            "rustup component add rustfmt clippy",
            "sudo apt-get install firefox-esr",
            "cargo xtask test native deny types engine",
        ] {
            assert!(advice.lines().any(|found| found.trim() == line), "{line} is not in\n{advice}");
        }
        assert!(!super::advice(&[&WASM]).contains("apt-get"), "rustup alone brings the target");
    }
}
