//! Tells the kernels what the target's name, or its features, say of its instructions and `cfg` does not.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(arm_dsp)");
    println!("cargo::rustc-check-cfg=cfg(arm_fpu)");
    println!("cargo::rustc-check-cfg=cfg(armv6m)");
    println!("cargo::rustc-check-cfg=cfg(armv7m)");
    println!("cargo::rustc-check-cfg=cfg(neon)");
    println!("cargo::rustc-check-cfg=cfg(swar)");
    let target = std::env::var("TARGET").unwrap_or_default();
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let abi = std::env::var("CARGO_CFG_TARGET_ABI").unwrap_or_default();
    let endian = std::env::var("CARGO_CFG_TARGET_ENDIAN").unwrap_or_default();
    // RV32I has no multiplication, and RV32E, told by its ABI, has half the registers.
    let multiplies = features.split(',').any(|feature| matches!(feature, "m" | "zmmul"));
    let riscv32 = arch == "riscv32" && multiplies && abi != "ilp32e";
    // Cortex-M4 and M7 always have the DSP extension; its target feature is not stable.
    if target.starts_with("thumbv7em") {
        println!("cargo::rustc-cfg=arm_dsp");
    } else if target.starts_with("thumbv") || riscv32 {
        println!("cargo::rustc-cfg=swar");
    }
    // What the kernels load as bytes they look at as wider lanes, the lowest byte first.
    if arch == "aarch64" && endian == "little" {
        println!("cargo::rustc-cfg=neon");
    }
    if target.starts_with("thumbv7m-") {
        println!("cargo::rustc-cfg=armv7m");
    }
    if target.starts_with("thumbv6m") {
        println!("cargo::rustc-cfg=armv6m");
    }
    if target == "thumbv7em-none-eabihf" {
        println!("cargo::rustc-cfg=arm_fpu");
    }
}
