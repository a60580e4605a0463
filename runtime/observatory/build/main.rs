//! Builds the eBPF programs of `ebpf/probes` into `OUT_DIR/terrarium-probes`, which the crate embeds.
//!
//! It has a target folder of its own below `OUT_DIR`: the outer cargo holds the lock of the usual one.

mod ebpf_toolchain;

use object::build::elf::SectionData;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Said(reason)) => {
            // Cargo prints this as an error of the build, with none of its own noise around it.
            println!("cargo::error={reason}");
            ExitCode::SUCCESS
        }
        Err(Failure::Shown(text)) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

/// Why there are no eBPF programs.
enum Failure {
    /// In one sentence.
    Said(String),
    /// With what the compiler said.
    Shown(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Said(reason)
    }
}

fn build() -> Result<(), Failure> {
    let ebpf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ebpf");
    for path in ["abi/src", "abi/Cargo.toml", "probes/src", "probes/build.rs", "probes/Cargo.toml"]
    {
        println!("cargo::rerun-if-changed={}", ebpf.join(path).display());
    }
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-env-changed={}", ebpf_toolchain::LINKER_VARIABLE);
    println!("cargo::rerun-if-env-changed=PATH");

    let toolchain = ebpf_toolchain::find().map_err(|missing| missing.to_string())?;
    println!("cargo::rerun-if-changed={}", toolchain.linker.display());

    let variable = |name: &str| env::var(name).map_err(|_| format!("cargo did not set {name}"));
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let target_dir = out_dir.join("ebpf");
    let mut command = toolchain.build_command(&ebpf.join("probes/Cargo.toml"), &target_dir, &arch);
    run(&mut command, &toolchain)?;

    let object = target_dir.join(ebpf_toolchain::TARGET).join("release/terrarium-probes");
    let embedded = out_dir.join("terrarium-probes");
    let image = fs::read(&object).map_err(|e| format!("read {}: {e}", object.display()))?;
    let image = without_debug_information(&image)
        .map_err(|e| format!("take the debugging information from {}: {e}", object.display()))?;
    fs::write(&embedded, image).map_err(|e| format!("write {}: {e}", embedded.display()))?;
    Ok(())
}

/// An object file without its DWARF sections, which are four fifths of it. The kernel is told types by `.BTF` and functions by
/// `.BTF.ext`, which the linker makes of them; what is in these stands there already, and the relocations for it, which loaders pass
/// over, are another quarter. The lines go as well, see [`without_lines`].
fn without_debug_information(image: &[u8]) -> object::build::Result<Vec<u8>> {
    let mut builder = object::build::elf::Builder::read(image)?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        section.delete =
            [".debug_", ".rel.debug_", ".rel.BTF"].iter().any(|of| name.starts_with(of));
        if let (".BTF.ext", SectionData::Data(data)) = (name.as_str(), &mut section.data) {
            without_lines(data.to_mut());
        }
    }
    builder.delete_orphans();
    // LLVM keeps names of sections and of symbols in one table; the builder wants one of each.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// Takes the line of each instruction from a section `.BTF.ext` (linux/Documentation/bpf/btf.rst, 4.2). They are two fifths of the
/// object, and the loader keeps those of a whole section for each function in it: 20 MiB of memory while it loads. The verifier would
/// quote them in its log.
fn without_lines(ext: &mut Vec<u8>) {
    let word = |at: usize| {
        let bytes = ext.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let fields = [4, 8, 12, 16, 28].map(word);
    let [Some(header), Some(0), Some(functions), Some(lines), Some(0)] = fields else {
        // Laid out in another way, or with relocations for fields behind the lines: it stays as it is.
        return;
    };
    if lines == functions {
        ext[20..24].fill(0);
        // The relocations, of which there are none, follow the functions now.
        ext.copy_within(16..20, 24);
        ext.truncate(header + functions);
    }
}

fn run(command: &mut Command, toolchain: &ebpf_toolchain::Toolchain) -> Result<(), Failure> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot build the eBPF programs with {}: {e}", toolchain.route))?;
    if out.status.success() {
        return Ok(());
    }
    Err(Failure::Shown(format!(
        "cannot build the eBPF programs with {} and {}:\n{}",
        toolchain.route,
        toolchain.linker.display(),
        String::from_utf8_lossy(&out.stderr)
    )))
}
