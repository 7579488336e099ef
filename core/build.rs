//! Tells the kernels what the target's name says of its instructions and `cfg` does not.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(arm_dsp)");
    println!("cargo::rustc-check-cfg=cfg(arm_fpu)");
    println!("cargo::rustc-check-cfg=cfg(armv6m)");
    println!("cargo::rustc-check-cfg=cfg(armv7m)");
    println!("cargo::rustc-check-cfg=cfg(swar)");
    let target = std::env::var("TARGET").unwrap_or_default();
    // Cortex-M4 and M7 always have the DSP extension; its target feature is not stable.
    if target.starts_with("thumbv7em") {
        println!("cargo::rustc-cfg=arm_dsp");
    } else if target.starts_with("thumbv") || target.starts_with("riscv32") {
        println!("cargo::rustc-cfg=swar");
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
