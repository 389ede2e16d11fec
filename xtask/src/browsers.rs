//! The browsers and drivers that the tests need: found on this machine, or named with the command that installs them.

use crate::{command, project};
use anyhow::{Result, bail};

/// A program that only the system's package manager can bring.
struct Needed {
    what: &'static str,
    /// The names it goes by.
    programs: &'static [&'static str],
    /// Its package on Debian and Ubuntu.
    package: &'static str,
}

const NEEDED: [Needed; 3] = [
    Needed {
        what: "Chromium or Chrome",
        programs: &["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"],
        package: "chromium",
    },
    Needed { what: "chromedriver", programs: &["chromedriver"], package: "chromium-driver" },
    Needed { what: "Firefox", programs: &["firefox", "firefox-esr"], package: "firefox-esr" },
];

/// A third engine, tested where it is there; its browser has no headless mode, and so needs a display.
const WEBKIT: [Needed; 2] = [
    Needed { what: "WebKitWebDriver", programs: &["WebKitWebDriver"], package: "webkit2gtk-driver" },
    Needed { what: "Xvfb", programs: &["Xvfb"], package: "xvfb" },
];

/// Makes sure that Chromium, chromedriver and Firefox are there: with `install` by apt-get, else by saying what to do.
pub(crate) fn require(install: bool) -> Result<()> {
    if install && project::find_program(&["apt-get"]).is_some() {
        apt_get(&missing(&NEEDED))?;
        if let Err(error) = apt_get(&missing(&WEBKIT)) {
            println!("{error:#}\nWebKit is optional: its tests will be skipped.");
        }
    }
    check()
}

fn missing(needed: &'static [Needed]) -> Vec<&'static Needed> {
    needed.iter().filter(|needed| !needed.exists()).collect()
}

/// Fails with the list of what is missing and how to get it.
fn check() -> Result<()> {
    let missing = missing(&NEEDED);
    if missing.is_empty() {
        return Ok(());
    }
    let what: Vec<&str> = missing.iter().map(|needed| needed.what).collect();
    let packages: Vec<&str> = missing.iter().map(|needed| needed.package).collect();
    bail!(
        "missing: {}. On Debian,\n\n    sudo apt-get install {}\n\ninstalls it, and so does `cargo xtask test --install`; \
         elsewhere install it by hand, so that it is on PATH. The tests that need no browser run with\n\n    \
         cargo xtask test {}",
        what.join(", "),
        packages.join(" "),
        crate::test::STEPS_WITHOUT_BROWSER.join(" "),
    )
}

impl Needed {
    fn exists(&self) -> bool {
        project::find_program(self.programs).is_some()
    }
}

/// Installs what is missing, through sudo where this is not root.
fn apt_get(missing: &[&Needed]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|needed| needed.package).collect();
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
    apt_get(&[&["install", "--yes", "--quiet", "--no-install-recommends"], packages.as_slice()].concat())
}
