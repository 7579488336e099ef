//! The emulated boards.

/// A board that QEMU emulates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Board {
    /// A Cortex-M4F.
    #[default]
    Mps2An386,
    /// A Cortex-M0, with more memory than the chip, for any blob. It is QEMU's only machine with
    /// this core.
    Microbit,
}

impl Board {
    /// Rust target triple of its core.
    pub const fn target(self) -> &'static str {
        match self {
            Self::Mps2An386 => "thumbv7em-none-eabihf",
            Self::Microbit => "thumbv6m-none-eabi",
        }
    }

    /// QEMU's arguments for it.
    pub const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Mps2An386 => &["-machine", "mps2-an386"],
            Self::Microbit => &[
                "-machine",
                "microbit",
                "-global",
                "nrf51-soc.flash-size=0x400000",
                "-global",
                "nrf51-soc.sram-size=0x100000",
            ],
        }
    }
}
