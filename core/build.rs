//! Detects target features that kernels need and that stable Rust does not expose through `cfg`.
//!
//! For Arm targets the script assembles one instruction of each feature with the flags of this
//! build, so that `-C target-cpu` and `-C target-feature` apply as they do to the kernels. A new
//! capability is one more line in [`main`].

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["arm_dsp", "arm_fpu", "neon", "swar", "thumb1", "thumb2"] {
        println!("cargo::rustc-check-cfg=cfg({name})");
    }
    let set = |name: &str, present: bool| {
        if present {
            println!("cargo::rustc-cfg={name}");
        }
    };
    let get = |name: &str| env::var(name).unwrap_or_default();
    let (arch, endian) = (get("CARGO_CFG_TARGET_ARCH"), get("CARGO_CFG_TARGET_ENDIAN"));

    // The kernels reinterpret bytes as wider lanes in little-endian order.
    set("neon", arch == "aarch64" && endian == "little");

    // RV32I has no multiplication; RV32E (ABI ilp32e) has only 16 registers.
    let features = get("CARGO_CFG_TARGET_FEATURE");
    let multiplies = features.split(',').any(|feature| matches!(feature, "m" | "zmmul"));
    let riscv32 = arch == "riscv32" && multiplies && get("CARGO_CFG_TARGET_ABI") != "ilp32e";

    let m_profile = arch == "arm" && endian == "little" && Probe::MProfile.passes();
    let thumb2 = m_profile && Probe::Thumb2.passes();
    let dsp = thumb2 && Probe::Dsp.passes();
    set("thumb1", m_profile && !thumb2);
    set("thumb2", thumb2);
    set("arm_dsp", dsp);
    set("arm_fpu", thumb2 && Probe::Fpu.passes());
    set("swar", riscv32 || m_profile && !dsp);
}

/// Features of Arm microcontrollers.
#[derive(Clone, Copy)]
enum Probe {
    /// Cortex-M, of any version.
    MProfile,
    /// All of Thumb-2: Cortex-M3 and later but M23.
    Thumb2,
    /// DSP extension (dual 16-bit multiplications): Cortex-M4, M7, M33 and later.
    Dsp,
    /// Single-precision FPU with FP16 conversion.
    Fpu,
}

impl Probe {
    const fn instructions(self) -> &'static str {
        match self {
            Self::MProfile => "mrs r0, primask",
            Self::Thumb2 => "mla r0, r0, r0, r0",
            Self::Dsp => "smmla r0, r0, r0, r0",
            Self::Fpu => "vfma.f32 s0, s0, s0\\nvcvtb.f32.f16 s0, s0",
        }
    }

    fn passes(self) -> bool {
        assembles(self.instructions()).unwrap_or_else(|| self.by_name())
    }

    /// Fallback by target name, where the probe cannot be compiled (`-Z build-std`).
    fn by_name(self) -> bool {
        let target = env::var("TARGET").unwrap_or_default();
        match self {
            Self::MProfile => target.starts_with("thumbv"),
            Self::Thumb2 => target.starts_with("thumbv7") || target.starts_with("thumbv8m.main"),
            Self::Dsp => target.starts_with("thumbv7em"),
            Self::Fpu => target == "thumbv7em-none-eabihf",
        }
    }
}

/// Whether the target has these instructions; `None` if nothing compiles for it.
fn assembles(instructions: &str) -> Option<bool> {
    if compiles(instructions)? {
        return Some(true);
    }
    compiles("nop")?.then_some(false)
}

/// Whether a function of these instructions compiles; `None` if the compiler cannot be run.
fn compiles(instructions: &str) -> Option<bool> {
    let out = PathBuf::from(env::var_os("OUT_DIR")?).join("probe.o");
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let mut compiler = Command::new(env::var_os("RUSTC").unwrap_or(OsString::from("rustc")))
        .args(["--crate-name=probe", "--crate-type=lib", "--edition=2024", "--emit=obj", "-"])
        .arg("--target")
        .arg(env::var_os("TARGET")?)
        .arg("-o")
        .arg(&out)
        .args(flags.split('\x1f').filter(|flag| !flag.is_empty()))
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let source = format!(
        "#![no_std]\n#[unsafe(no_mangle)]\npub fn probe() \
         {{ unsafe {{ core::arch::asm!(\"{instructions}\") }} }}"
    );
    compiler.stdin.take()?.write_all(source.as_bytes()).ok()?;
    Some(compiler.wait().ok()?.success())
}
