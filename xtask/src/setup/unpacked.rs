//! QEMU without installation: fetched by apt and unpacked into the build directory, where it cannot
//! conflict with installed packages. Needs no root.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::manager::APT;
use crate::emulator::directory;
use crate::process::{exists, output, partial, run};

/// dpkg's database of installed packages.
const STATUS: &str = "/var/lib/dpkg/status";

/// Whether packages can be unpacked here.
pub(super) fn possible() -> bool {
    exists(APT.program) && exists("dpkg-deb") && Path::new(STATUS).is_file()
}

/// Fetches and unpacks the packages and their dependencies that are not installed.
pub(super) fn unpack(packages: &[&str]) -> Result<()> {
    let partial = partial(&directory());
    let archives = partial.join("archives");
    // Remove leftovers of an interrupted run.
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(archives.join("partial"))
        .with_context(|| format!("cannot create {}", archives.display()))?;

    // Resolve dependencies as if the conflicting packages were not installed.
    let planned =
        output(apt(&["--simulate", "install", "--no-install-recommends"]).args(packages))?;
    let installed = fs::read_to_string(STATUS).with_context(|| format!("cannot read {STATUS}"))?;
    let status = partial.join("status");
    fs::write(&status, without(&installed, &removed(&String::from_utf8_lossy(&planned))))
        .with_context(|| format!("cannot write {}", status.display()))?;
    let mut fetch = apt(&["install", "-y", "--no-install-recommends", "--download-only"]);
    for (option, path) in [("Dir::State::status", &status), ("Dir::Cache::archives", &archives)] {
        fetch.arg("-o").arg(format!("{option}={}", path.display()));
    }
    // apt's caches are for the real status, and its locks need root; the system does not change.
    for option in ["Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache=", "Debug::NoLocking=1"] {
        fetch.args(["-o", option]);
    }
    run(fetch.args(packages))?;

    let root = partial.join("root");
    let mut count = 0;
    for entry in fs::read_dir(&archives)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&root))?;
            count += 1;
        }
    }
    ensure!(count > 0, "apt fetched none of {}", packages.join(", "));
    let _ = fs::remove_dir_all(directory());
    fs::rename(&root, directory()).with_context(|| format!("cannot rename {}", root.display()))?;
    // The archives are no longer needed.
    let _ = fs::remove_dir_all(&partial);
    Ok(())
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new(APT.program);
    // The output is parsed, so it must be in English.
    command.args(arguments).env("LC_ALL", "C");
    command
}

/// The packages that apt would remove, from its simulation.
fn removed(planned: &str) -> BTreeSet<&str> {
    planned
        .lines()
        .filter_map(|line| line.strip_prefix("Remv ")?.split_whitespace().next())
        .collect()
}

/// The database of installed packages without these.
fn without(status: &str, packages: &BTreeSet<&str>) -> String {
    let is_kept = |paragraph: &&str| {
        let name = paragraph.lines().find_map(|line| line.strip_prefix("Package: "));
        name.is_none_or(|name| !packages.contains(name.trim()))
    };
    status.split_inclusive("\n\n").filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_way_is_left_out() {
        let planned = "Reading package lists...\nRemv qemu-utils [1:10.0.2+ds-2]\n\
                       Inst libfdt1 (1.6.1 Debian:12 [amd64])\nConf libfdt1 (1.6.1)\n";
        let gone = removed(planned);
        assert_eq!(gone, BTreeSet::from(["qemu-utils"]));
        let status = "Package: libc6\nVersion: 2\n\nPackage: qemu-utils\nVersion: 1\n\n\
                      Package: qemu-utils-doc\nDepends: qemu-utils\n\n";
        let left = "Package: libc6\nVersion: 2\n\nPackage: qemu-utils-doc\nDepends: qemu-utils\n\n";
        assert_eq!(without(status, &gone), left);
        assert_eq!(without(status, &removed("Inst libfdt1\n")), status);
    }
}
