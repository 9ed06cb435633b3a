//! `smalloc run`: runs a program of any language on smalloc's heap.
//!
//! The process becomes the program, so exit code, signals and terminal are the program's own.

use std::convert::Infallible;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::builder::ValueParser;
use clap::{ValueHint, value_parser};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};
use smalloc_terminal::parse_size;

/// The library's file.
const LIBRARY: &str = "libsmalloc-preload.so";
/// Names the library, unless an option does.
const VARIABLE: &str = "SMALLOC_PRELOAD";

const EXAMPLES: &str = "\
The program gets libsmalloc-preload.so, which `crates/c/build FOLDER` makes. It is looked for where --library and the
variable SMALLOC_PRELOAD say, beside this command, in ../lib from there, and in /usr/local/lib and /usr/lib.

Examples:
  smalloc run --record perl.rec -- perl words.pl && smalloc report perl.rec -o report.html
  smalloc run --region 512M --live /tmp/heap.live -- redis-server & smalloc top --wait /tmp/heap.live
  smalloc run --record make.%p.rec -- make        # one file for each process

Exit code: that of the program, or 2 if it could not be started.";

/// Run a program on smalloc's heap.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Record every call in a file; %p in its name becomes the process number
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, overrides_with = "record")]
    record: Option<PathBuf>,
    /// Publish the heap's numbers in a file, for `smalloc top`; %p as above
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, overrides_with = "live")]
    live: Option<PathBuf>,
    /// The size of each region, such as 512M or 2G: nothing is allocated outside
    #[arg(long, value_name = "SIZE", overrides_with = "region", value_parser = ValueParser::new(parse_size))]
    region: Option<usize>,
    /// The library that is preloaded
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, overrides_with = "library")]
    library: Option<PathBuf>,
    /// The program and its arguments
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true, allow_hyphen_values = true,
          value_hint = ValueHint::CommandWithArguments, value_parser = value_parser!(OsString))]
    program: Vec<OsString>,
}

/// Becomes the program, and does not return.
///
/// # Errors
///
/// If the library or the program cannot be found, or the program takes no library.
pub fn run(args: &Args) -> Result<Infallible> {
    let [program, arguments @ ..] = &args.program[..] else { bail!("there is no program") };
    let library = library(args.library.as_deref())?;
    let path = find(program).with_context(|| format!("{}: there is no such program", program.display()))?;
    check(&path).with_context(|| path.display().to_string())?;
    let mut command = Command::new(&path);
    // Many programs look at the name that they are called by.
    command.arg0(program).args(arguments).env("LD_PRELOAD", preloaded(library));
    // The program's heap knows no such variable, and would say so.
    command.env_remove(VARIABLE);
    let region = args.region.map(|bytes| OsString::from(bytes.to_string()));
    let (record, live) = (args.record.as_ref(), args.live.as_ref());
    for (variable, value) in [
        ("SMALLOC_RECORD", record.map(|path| path.as_os_str().to_owned())),
        ("SMALLOC_LIVE", live.map(|path| path.as_os_str().to_owned())),
        ("SMALLOC_REGION", region),
    ] {
        value.into_iter().for_each(|value| _ = command.env(variable, value));
    }
    let error = command.exec();
    Err(anyhow!(error).context(format!("{}: it cannot be started", path.display())))
}

/// The library before all others that are preloaded already.
fn preloaded(library: PathBuf) -> OsString {
    let mut all = library.into_os_string();
    if let Some(others) = env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        all.push(":");
        all.push(others);
    }
    all
}

/// The path of the library, from the root on.
fn library(asked: Option<&Path>) -> Result<PathBuf> {
    let named = env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let (name, path) = match (asked, named) {
        (Some(path), _) => ("--library", path.to_owned()),
        (None, Some(path)) => (VARIABLE, path),
        (None, None) => {
            let own = env::current_exe().ok();
            let own = own.as_deref().and_then(Path::parent).unwrap_or(Path::new("/usr/local/bin"));
            let folders = [own.to_owned(), own.join("../lib"), "/usr/local/lib".into(), "/usr/lib".into()];
            let found = folders.iter().map(|folder| folder.join(LIBRARY)).find(|path| path.is_file());
            let path = found.with_context(|| {
                format!("{LIBRARY} is not found (build it by crates/c/build, and name it by --library or {VARIABLE})")
            })?;
            ("the library", path)
        }
    };
    let told = || format!("{name}: {}", path.display());
    let path = path.canonicalize().with_context(told)?;
    let bytes = fs::read(&path).with_context(told)?;
    ensure!(bytes.starts_with(&elf::ELFMAG), "{}: it is no library", told());
    // The loader parts paths there, and knows no escapes.
    let parts = path.as_os_str().as_bytes().iter().any(|byte| [b' ', b':'].contains(byte));
    ensure!(!parts, "{}: its path may have no space and no colon", told());
    Ok(path)
}

/// The file of a program, as a shell finds it.
fn find(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Path::new(program).exists().then(|| program.into());
    }
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(is_program)
}

/// An error if the loader will not preload a library into this program, which it does not tell.
fn check(path: &Path) -> Result<()> {
    let file = path.metadata()?;
    let special = file.permissions().mode() & 0o6000 != 0;
    ensure!(!special, "it is set-user-ID or set-group-ID, and takes no library of its user's");
    // A program may be executable and not readable.
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
        bytes => bytes?,
    };
    // A script is run by a program of its own.
    if !bytes.starts_with(&elf::ELFMAG) {
        return Ok(());
    }
    let header = elf::FileHeader64::<Endianness>::parse(&*bytes);
    let header = header.map_err(|_| anyhow!("it is no program of 64 bits, and the library is one"))?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, &*bytes)?;
    let is_dynamic = segments.iter().any(|segment| segment.p_type(endian) == elf::PT_INTERP);
    ensure!(is_dynamic, "it is linked statically, and takes no library");
    Ok(())
}
