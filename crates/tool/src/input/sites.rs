//! Call sites: the stacks from which a program called its allocator, by number, and the names of their frames.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;

use addr2line::Loader;
use object::Object;

/// Functions that only pass a request on. A site is named after the first frame that is not one of them.
const PLUMBING: [&str; 15] = [
    "operator new",
    "__rust_",
    "__rdl_",
    "__rg_",
    "__rustc::",
    "smalloc::",
    "<smalloc::",
    "alloc::",
    "<alloc::",
    "std::alloc",
    "core::",
    "<core::",
    "hashbrown::raw",
    "std::allocator",
    "__gnu_cxx::",
];
/// Parts of the paths of source files in which such functions stand: with line tables alone their names are bare.
const PLUMBING_FILES: [&str; 3] = ["/library/alloc/", "/library/core/", "/hashbrown-"];
/// Functions of the allocator and of the compiler's way to it. They are left out at the inside of a stack.
const ALLOCATOR: [&str; 8] = [
    "smalloc::",
    "<smalloc::",
    "__rust_",
    "__rdl_",
    "__rg_",
    "__rustc::",
    "alloc::alloc::",
    "<alloc::alloc::",
];
/// The name of an unknown frame.
const UNKNOWN: &str = "unknown";

/// A program file or a library in memory.
#[derive(Clone, Debug)]
struct Module {
    path: String,
    /// The difference between addresses in memory and in the file.
    base: u64,
    from: u64,
    to: u64,
    /// Empty if the trace does not tell it.
    build_id: Vec<u8>,
}

/// The stacks of a trace: return addresses, each on top of an earlier stack, and the places where files were mapped.
#[derive(Default)]
pub(super) struct Stacks {
    pub(super) sites: Sites,
    modules: Vec<Module>,
    files: HashMap<String, Option<Loader>>,
    /// The number of each frame, by its name.
    names: HashMap<String, u32>,
    /// Whether each frame only passes a request on, by its number.
    plumbing: Vec<bool>,
    /// The numbers of the frames at an address, which hold until files are mapped elsewhere.
    known: HashMap<u64, Vec<u32>>,
}

impl Stacks {
    /// Adds a stack: an address on top of an earlier stack, 0 for none. Stacks are numbered from 1 on.
    pub(super) fn push(&mut self, address: u64, parent: u32) {
        let frames = match self.known.get(&address) {
            Some(frames) => frames.clone(),
            None => {
                let frames: Vec<u32> =
                    self.frames(address).into_iter().map(|frame| self.number(frame)).collect();
                self.known.insert(address, frames.clone());
                frames
            }
        };
        // A stack stands on an earlier one, so no walk can go in a circle.
        let parent = if (parent as usize) <= self.sites.stacks.len() { parent } else { 0 };
        let is_own = |frame: &&u32| !self.plumbing[**frame as usize];
        let inherited = Some(self.sites.site_of(parent)).filter(|&site| site > 0);
        let own = frames.iter().find(is_own).map(|&frame| frame + 1);
        let site = own.or(inherited).unwrap_or(frames[0] + 1);
        self.sites.stacks.push(Stack { frames, parent, site });
    }

    /// A part of a file was mapped from `from` on. `base` is the distance of the file's addresses from those in memory.
    pub(super) fn map(&mut self, path: &str, base: u64, from: u64, bytes: u64) {
        let to = from.saturating_add(bytes);
        self.modules.push(Module { path: path.to_owned(), base, from, to, build_id: Vec::new() });
    }

    /// A file with this build ID was loaded, maybe over one that is no longer there.
    pub(super) fn load(&mut self, path: &str, build_id: &[u8], base: u64, range: Range<u64>) {
        let (path, build_id) = (path.to_owned(), build_id.to_owned());
        self.modules.push(Module { path, base, from: range.start, to: range.end, build_id });
        self.known.clear();
    }

    /// All files were unmapped; those that remain will be mapped again.
    pub(super) fn unmap(&mut self) {
        self.modules.clear();
        self.known.clear();
    }

    fn number(&mut self, frame: Frame) -> u32 {
        let (frames, plumbing) = (&mut self.sites.frames, &mut self.plumbing);
        *self.names.entry(frame.name).or_insert_with_key(|name| {
            frames.push(name.clone());
            plumbing.push(frame.is_plumbing);
            frames.len() as u32 - 1
        })
    }

    /// The names of the frames at an address, at least one: inlined ones come first. They are found in files that are
    /// still on this machine.
    fn frames(&mut self, address: u64) -> Vec<Frame> {
        let module = self.modules.iter().rfind(|module| (module.from..module.to).contains(&address));
        let Some(module) = module else { return vec![Frame::new(UNKNOWN, None)] };
        let open = || open(module);
        let loader = self.files.entry(module.path.clone()).or_insert_with(open);
        // A return address is behind the call; the call itself is before it.
        let probe = address.wrapping_sub(module.base).wrapping_sub(1);
        let mut names = loader.as_ref().map_or(Vec::new(), |loader| functions(loader, probe));
        if names.is_empty() {
            let file = module.path.rsplit('/').next().unwrap_or(UNKNOWN);
            names.push(Frame::new(&format!("{file}+{:#x}", address.wrapping_sub(module.base)), None));
        }
        names
    }
}

/// Opens a file, if it is the one that the trace means.
fn open(module: &Module) -> Option<Loader> {
    if !module.build_id.is_empty() {
        let bytes = fs::read(&module.path).ok()?;
        let file = object::File::parse(bytes.as_slice()).ok()?;
        if file.build_id().ok()? != Some(&module.build_id) {
            return None;
        }
    }
    Loader::new(&module.path).ok()
}

/// The functions at an address of a file: by its debug information, or else by its symbols. Those that are inlined into
/// the allocator are left out.
fn functions(file: &Loader, probe: u64) -> Vec<Frame> {
    let symbol = file.find_symbol(probe);
    let symbol = symbol.map(|name| addr2line::demangle_auto(name.into(), None).into_owned());
    if let Some(name) = symbol.as_ref().filter(|name| is_allocator(name)) {
        return vec![Frame::new(name, None)];
    }
    let (mut names, mut last) = (Vec::new(), None);
    if let Ok(mut frames) = file.find_frames(probe) {
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.as_ref().and_then(|name| name.demangle().ok());
            names.extend(name.map(|name| Frame::new(&name, frame.location.as_ref())));
            last = frame.location;
        }
    }
    // With line tables alone names lack their paths. The symbol is that of the outermost function.
    if let Some(symbol) = symbol
        && names.last().is_none_or(|frame| !frame.name.contains("::"))
    {
        names.pop();
        names.push(Frame::new(&symbol, last.as_ref()));
    }
    names
}

fn is_allocator(name: &str) -> bool {
    ALLOCATOR.iter().any(|start| name.starts_with(start))
}

/// A function, with its source file and line if they are known.
struct Frame {
    name: String,
    /// Whether it only passes a request on.
    is_plumbing: bool,
}

impl Frame {
    fn new(function: &str, location: Option<&addr2line::Location<'_>>) -> Self {
        let file = location.and_then(|location| location.file).unwrap_or("");
        let is_plumbing = PLUMBING.iter().any(|start| function.starts_with(start))
            || PLUMBING_FILES.iter().any(|part| file.contains(part));
        Self { name: with_file(function, location), is_plumbing }
    }
}

/// A function with its source file and line. Only the last two parts of the path are shown.
fn with_file(name: &str, location: Option<&addr2line::Location<'_>>) -> String {
    let Some((file, line)) = location.and_then(|place| Some((place.file?, place.line?))) else {
        return name.to_owned();
    };
    let parts = file.rsplit('/').take(2).collect::<Vec<_>>();
    format!("{name} ({}:{line})", parts.into_iter().rev().collect::<Vec<_>>().join("/"))
}

/// A call stack: the frames at a return address, on top of the stack of its caller.
#[derive(Clone, Debug)]
struct Stack {
    frames: Vec<u32>,
    parent: u32,
    site: u32,
}

/// The call stacks of a trace, by number from 1 on, and the sites that they belong to: the site of a stack is its first
/// frame that does not belong to an allocator or a collection.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// The names of all frames, each once.
    pub frames: Vec<String>,
    stacks: Vec<Stack>,
    /// Bytes among which one request had its stack taken; 0 and 1 if all had.
    pub interval: u64,
}

impl Sites {
    /// The numbers of the frames of a stack, the innermost first, without those of the allocator. None if there is no
    /// such stack.
    pub fn stack(&self, number: u32) -> Vec<u32> {
        let mut frames = Vec::new();
        let mut next = number;
        while let Some(stack) = self.get(next) {
            frames.extend(&stack.frames);
            next = stack.parent;
        }
        let is_outside = |&frame: &u32| !is_allocator(&self.frames[frame as usize]);
        let own = frames.iter().position(is_outside).unwrap_or(0);
        frames.split_off(own)
    }

    /// Whether the stacks are a sample.
    pub fn is_sample(&self) -> bool {
        self.interval > 1
    }

    /// The number of a stack's site; 0 if there is no such stack.
    pub fn site_of(&self, stack: u32) -> u32 {
        self.get(stack).map_or(0, |stack| stack.site)
    }

    /// The name of a site.
    pub fn name(&self, site: u32) -> &str {
        let frame = site.checked_sub(1).and_then(|frame| self.frames.get(frame as usize));
        frame.map_or(UNKNOWN, String::as_str)
    }

    fn get(&self, number: u32) -> Option<&Stack> {
        number.checked_sub(1).and_then(|index| self.stacks.get(index as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sites: &Sites, stack: u32) -> Vec<&str> {
        sites.stack(stack).iter().map(|&frame| sites.frames[frame as usize].as_str()).collect()
    }

    #[test]
    fn stacks_lead_from_the_inside_out() {
        let mut stacks = Stacks::default();
        stacks.map("/nowhere/lib.so", 0x1000, 0x1000, 0x1000);
        stacks.push(0x1100, 0);
        stacks.push(0x1200, 1);
        stacks.push(0x9000, 2);
        stacks.push(0x1100, 99);
        let sites = &stacks.sites;
        assert_eq!(names(sites, 2), ["lib.so+0x200", "lib.so+0x100"]);
        assert_eq!(names(sites, 3), ["unknown", "lib.so+0x200", "lib.so+0x100"]);
        assert_eq!(names(sites, 4), ["lib.so+0x100"], "it stands on a stack that was never told");
        assert!(sites.stack(0).is_empty() && sites.stack(5).is_empty());
        assert_eq!(sites.frames.len(), 3, "each name is there once");
        assert_eq!((sites.site_of(1), sites.name(sites.site_of(4))), (sites.site_of(4), "lib.so+0x100"));
        // Another file may be mapped where one was unmapped.
        stacks.unmap();
        stacks.map("/nowhere/other.so", 0x1000, 0x1000, 0x1000);
        stacks.push(0x1100, 0);
        assert_eq!(names(&stacks.sites, 5), ["other.so+0x100"]);
    }

    #[test]
    fn a_site_is_the_first_frame_of_the_program() {
        let mut stacks = Stacks::default();
        for (address, name) in [(1, "main"), (2, "cache::insert"), (3, "alloc::vec::Vec<T>::push")] {
            let frame = stacks.number(Frame::new(name, None));
            stacks.known.insert(address, vec![frame]);
        }
        for (address, parent) in [(1, 0), (2, 1), (3, 2), (3, 0)] {
            stacks.push(address, parent);
        }
        let sites = &stacks.sites;
        let site = |stack| sites.name(sites.site_of(stack));
        assert_eq!([1, 2, 3].map(site), ["main", "cache::insert", "cache::insert"]);
        assert_eq!(site(4), "alloc::vec::Vec<T>::push", "there is no other frame");
        assert_eq!((sites.site_of(9), sites.name(0)), (0, "unknown"));
    }

    /// The names of this very program are found.
    #[test]
    fn functions_of_a_file_are_named() {
        let path = std::env::current_exe().expect("the test program has a path");
        let maps = std::fs::read_to_string("/proc/self/maps").expect("there are mappings");
        let path = path.to_str().expect("a path in Unicode");
        let first = maps.lines().find(|line| line.ends_with(path)).expect("the program is mapped");
        let base = u64::from_str_radix(first.split('-').next().unwrap_or(""), 16).expect("an address");
        let mut stacks = Stacks::default();
        stacks.map(path, base, base, 1 << 40);
        let function: fn() = functions_of_a_file_are_named;
        stacks.push(function as *const () as u64 + 2, 0);
        let name = stacks.sites.name(stacks.sites.site_of(1));
        assert!(name.contains("functions_of_a_file_are_named") && name.contains("input/sites.rs:"), "{name}");
    }
}
