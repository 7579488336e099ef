//! Package managers, and their commands to install packages without removing others.

use std::io::{IsTerminal, stdin};
use std::process::Command;

use anyhow::Result;

use crate::process::{exists, output, run, shown};

/// A package manager: its program, its non-interactive install command, its update command, and its
/// names of the emulators.
pub(super) struct Manager {
    pub(super) program: &'static str,
    /// Arguments that install packages and fail if that would remove others.
    pub(super) install: &'static [&'static str],
    pub(super) update: Option<&'static [&'static str]>,
    /// In the order of [`super::EMULATORS`].
    pub(super) packages: [&'static str; 3],
    as_root: bool,
}

/// Debian's, whose packages can also be unpacked without installation ([`super::unpacked`]).
pub(super) const APT: Manager = Manager {
    program: "apt-get",
    // Recommended packages can conflict with a QEMU from backports, and none is needed.
    install: &["install", "-y", "--no-remove", "--no-install-recommends"],
    update: Some(&["update"]),
    packages: ["qemu-system-arm", "qemu-system-misc", "qemu-user"],
    as_root: true,
};

pub(super) const MANAGERS: [Manager; 5] = [
    APT,
    Manager {
        program: "dnf",
        // Without --allowerasing it removes nothing.
        install: &["install", "-y"],
        update: None,
        packages: ["qemu-system-arm", "qemu-system-riscv", "qemu-user"],
        as_root: true,
    },
    Manager {
        program: "pacman",
        // --noconfirm answers no to removing conflicting packages.
        install: &["-S", "--noconfirm"],
        update: None,
        packages: ["qemu-system-arm", "qemu-system-riscv", "qemu-user"],
        as_root: true,
    },
    Manager {
        program: "zypper",
        // A conflict leads to a question, which ends a non-interactive installation.
        install: &["--non-interactive", "install", "--no-force-resolution"],
        update: None,
        packages: ["qemu-arm", "qemu-extra", "qemu-linux-user"],
        as_root: true,
    },
    Manager {
        program: "brew",
        // Formulae do not conflict.
        install: &["install"],
        update: None,
        packages: ["qemu", "qemu", "qemu"],
        as_root: false,
    },
];

impl Manager {
    /// Installs a package; fails if that would remove another.
    pub(super) fn install(&self, package: &str) -> Result<()> {
        run(self.command(self.install).arg(package))
    }

    /// The interactive command for the user to install a package.
    pub(super) fn by_hand(&self, package: &str) -> String {
        let mut command = match self.as_root {
            true => Command::new("sudo"),
            false => Command::new(self.program),
        };
        if self.as_root {
            command.arg(self.program);
        }
        let silent = ["-y", "--noconfirm", "--non-interactive", "--no-remove"];
        let asks = self.install.iter().filter(|argument| !silent.contains(argument));
        shown(command.args(asks).arg(package))
    }

    /// The manager's command with these arguments, through `sudo` if it needs root.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = if self.as_root && !is_root() && exists("sudo") {
            let mut command = Command::new("sudo");
            if !stdin().is_terminal() {
                // Without a terminal, `sudo` must not ask for a password.
                command.arg("--non-interactive");
            }
            command.arg(self.program);
            command
        } else {
            Command::new(self.program)
        };
        command.args(arguments);
        command
    }
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of each manager's command, without `sudo`.
    fn words(manager: &Manager) -> String {
        let mut command = manager.command(manager.install);
        let typed = shown(command.arg(manager.packages[0]));
        typed[typed.find(manager.program).unwrap()..].to_owned()
    }

    #[test]
    fn nothing_of_the_users_is_removed() {
        let expected = [
            "apt-get install -y --no-remove --no-install-recommends qemu-system-arm",
            "dnf install -y qemu-system-arm",
            "pacman -S --noconfirm qemu-system-arm",
            "zypper --non-interactive install --no-force-resolution qemu-arm",
            "brew install qemu",
        ];
        assert_eq!(MANAGERS.each_ref().map(words), expected);
        for forceful in
            ["--allowerasing", "--force-resolution", "--allow-remove", "--allow-downgrades"]
        {
            assert!(expected.iter().all(|words| !words.contains(&format!(" {forceful}"))));
        }
    }

    #[test]
    fn by_hand_the_manager_asks_first() {
        let typed = MANAGERS.each_ref().map(|manager| manager.by_hand(manager.packages[1]));
        assert_eq!(typed[0], "sudo apt-get install --no-install-recommends qemu-system-misc");
        assert_eq!(typed[2], "sudo pacman -S qemu-system-riscv");
        assert_eq!(typed[4], "brew install qemu");
    }
}
