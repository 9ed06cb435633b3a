//! Call sites: the stacks from which a program called its allocator, by number, and the names of their frames.

use std::collections::HashMap;

use addr2line::Loader;

/// Functions that only pass a request on. A site is named after the first frame that is none of them.
const PLUMBING: [&str; 12] = [
    "operator new",
    "__rust_",
    "__rdl_",
    "__rg_",
    "alloc::",
    "<alloc::",
    "std::alloc",
    "core::",
    "<core::",
    "hashbrown::raw",
    "std::allocator",
    "__gnu_cxx::",
];
/// The name of a frame about which nothing is known.
const UNKNOWN: &str = "unknown";

/// A program file or a library in memory.
#[derive(Clone, Debug)]
struct Module {
    path: String,
    /// The difference between addresses in memory and in the file.
    base: u64,
    from: u64,
    to: u64,
}

/// Stacks as a trace tells them: return addresses, and where files were mapped.
#[derive(Default)]
pub(super) struct Stacks {
    /// An address, and the number of the stack that it was called from; 0 is none.
    nodes: Vec<(u64, u32)>,
    modules: Vec<Module>,
}

impl Stacks {
    /// Adds a stack: an address on top of an earlier stack. Stacks are numbered from 1 on.
    pub(super) fn push(&mut self, address: u64, parent: u32) {
        // A stack stands on an earlier one, or on none: no walk can go in a circle.
        let known = (parent as usize) <= self.nodes.len();
        self.nodes.push((address, if known { parent } else { 0 }));
    }

    /// A part of a file was mapped from `from` on. `base` is what the file's addresses are moved by.
    pub(super) fn map(&mut self, path: &str, base: u64, from: u64, bytes: u64) {
        self.modules.push(Module { path: path.to_owned(), base, from, to: from.saturating_add(bytes) });
    }

    /// All files were unmapped, and those that are still there will be mapped again.
    pub(super) fn unmap(&mut self) {
        self.modules.clear();
    }

    /// Finds the names of all frames, in the files that are still on this machine.
    pub(super) fn resolve(&self) -> Sites {
        let mut sites = Sites::default();
        let mut names: HashMap<String, u32> = HashMap::new();
        let mut known: HashMap<u64, u32> = HashMap::new();
        let mut files = HashMap::new();
        for &(address, parent) in &self.nodes {
            let place = *known.entry(address).or_insert_with(|| {
                let frames = self.frames(address, &mut files).into_iter();
                let numbers = frames.map(|name| {
                    let next = names.len() as u32;
                    *names.entry(name.clone()).or_insert_with(|| {
                        sites.frames.push(name);
                        next
                    })
                });
                sites.places.push(numbers.collect());
                sites.places.len() as u32 - 1
            });
            sites.nodes.push((place, parent));
        }
        sites
    }

    /// The frames at an address: those that were inlined come first.
    fn frames(&self, address: u64, files: &mut HashMap<String, Option<Loader>>) -> Vec<String> {
        let module = self.modules.iter().rfind(|module| (module.from..module.to).contains(&address));
        let Some(module) = module else { return vec![UNKNOWN.to_owned()] };
        let loader = files.entry(module.path.clone()).or_insert_with(|| Loader::new(&module.path).ok());
        // A return address is behind the call; the call itself is before it.
        let probe = address.wrapping_sub(module.base).wrapping_sub(1);
        let mut names = Vec::new();
        if let Some(loader) = loader {
            if let Ok(mut frames) = loader.find_frames(probe) {
                while let Ok(Some(frame)) = frames.next() {
                    let name = frame.function.as_ref().and_then(|name| name.demangle().ok().map(Into::into));
                    names.extend(name.map(|name: String| with_file(&name, frame.location.as_ref())));
                }
            }
            if names.is_empty() {
                let symbol = loader.find_symbol(probe);
                names.extend(symbol.map(|name| addr2line::demangle_auto(name.into(), None).into_owned()));
            }
        }
        if names.is_empty() {
            let file = module.path.rsplit('/').next().unwrap_or(UNKNOWN);
            names.push(format!("{file}+{:#x}", address.wrapping_sub(module.base)));
        }
        names
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

/// The call sites of a trace.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// The names of all frames, each once.
    pub frames: Vec<String>,
    /// For each return address the numbers of its frames, the innermost first: several if functions were inlined.
    pub places: Vec<Vec<u32>>,
    /// For each site, from number 1 on, its place and the number of the site that called it; 0 is none.
    pub nodes: Vec<(u32, u32)>,
}

impl Sites {
    /// The numbers of a site's frames, the innermost first.
    pub fn stack_frames(&self, site: u32) -> Vec<u32> {
        let mut stack = Vec::new();
        let node = |site: u32| site.checked_sub(1).and_then(|index| self.nodes.get(index as usize));
        let mut next = site;
        while let Some(&(place, parent)) = node(next) {
            stack.extend(&self.places[place as usize]);
            next = parent;
        }
        stack
    }

    /// The name of a site: its first frame that does not belong to an allocator or a collection.
    pub fn name(&self, site: u32) -> &str {
        let stack: Vec<&str> =
            self.stack_frames(site).iter().map(|&frame| self.frames[frame as usize].as_str()).collect();
        let own = stack.iter().find(|frame| !PLUMBING.iter().any(|start| frame.starts_with(start)));
        own.or(stack.first()).copied().unwrap_or(UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_lead_from_the_inside_out() {
        let mut stacks = Stacks::default();
        stacks.map("/nowhere/lib.so", 0x1000, 0x1000, 0x1000);
        stacks.push(0x1100, 0);
        stacks.push(0x1200, 1);
        stacks.push(0x9000, 2);
        stacks.push(0x1100, 99);
        let sites = stacks.resolve();
        let stack = |site| {
            sites.stack_frames(site).iter().map(|&frame| &sites.frames[frame as usize]).collect::<Vec<_>>()
        };
        assert_eq!(stack(2), ["lib.so+0x200", "lib.so+0x100"]);
        assert_eq!(stack(3), ["unknown", "lib.so+0x200", "lib.so+0x100"]);
        assert_eq!(stack(4), ["lib.so+0x100"], "it stands on a stack that was never told");
        assert!(stack(0).is_empty() && stack(5).is_empty());
        assert_eq!(sites.frames.len(), 3, "each name is there once");
    }

    #[test]
    fn a_site_is_named_after_the_program() {
        let frames = ["alloc::vec::Vec<T>::push", "cache::insert", "main"].map(str::to_owned).to_vec();
        let sites =
            Sites { frames, places: vec![vec![2], vec![0, 1], vec![0]], nodes: vec![(0, 0), (1, 1), (2, 0)] };
        assert_eq!(sites.name(2), "cache::insert");
        assert_eq!(sites.name(3), "alloc::vec::Vec<T>::push");
        assert_eq!(sites.name(9), "unknown");
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
        let sites = stacks.resolve();
        assert!(sites.name(1).contains("functions_of_a_file_are_named"), "{:?}", sites.frames);
    }
}
