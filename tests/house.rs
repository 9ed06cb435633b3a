//! The shape of the source: the length of files and functions, and for the library which file may use which, and where
//! pointers are computed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders with Rust code. Only the first is part of a published package.
const FOLDERS: [&str; 6] = ["src", "tests", "examples", "benches", "crates", "fuzz"];
const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

/// The dependencies of the library. Rivals, parsers and drawing belong to the tests, the examples and the benches.
/// Three are optional: features implement their traits.
const DEPENDENCIES: [&str; 6] =
    ["libc", "serde", "spin", "static_assertions", "allocator_api2", "allocator_api2_04"];

/// The homes of pointer arithmetic: the heap's own memory, and every other mapping.
const POINTER_HOMES: [&str; 2] = ["region/", "system/mapping.rs"];

/// Calls that make a pointer from a pointer or a number.
const POINTER_ARITHMETIC: [&str; 9] = [
    ".add(",
    ".offset(",
    ".byte_add(",
    ".byte_sub(",
    ".byte_offset(",
    "offset_from(",
    "with_exposed_provenance",
    "as *mut",
    "as *const",
];

struct Source {
    /// From the folder on, as in `heap/mod.rs`.
    path: PathBuf,
    text: String,
}

impl Source {
    /// The names of the modules from the root to this file: `["heap", "grow"]`, none for `lib.rs`.
    fn modules(&self) -> Vec<String> {
        let path = self.path.with_extension("");
        let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
        names.filter(|name| name != "mod" && name != "lib").collect()
    }

    /// The module below the root that contains this file, or is it.
    fn layer(&self) -> Option<String> {
        self.modules().first().cloned()
    }

    /// The code without comments.
    fn code(&self) -> String {
        self.text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
    }
}

/// A room of the library: its name, and the rooms that it may use.
struct Room {
    name: String,
    uses: Vec<String>,
}

/// The table of rooms in the documentation of `lib.rs`, from the top down.
fn rooms() -> Vec<Room> {
    let lib = sources_in("src").into_iter().find(|source| source.path == Path::new("lib.rs")).unwrap();
    let rows = lib.text.lines().filter_map(|line| line.strip_prefix("//! | `"));
    rows.map(|row| {
        let columns: Vec<&str> = row.split(" | ").collect();
        let [name, _, uses] = &columns[..] else { panic!("a row of three columns: {row}") };
        let uses = uses.trim_end_matches('|').split_whitespace().map(str::to_owned).collect();
        Room { name: name.trim_end_matches('`').to_owned(), uses }
    })
    .collect()
}

/// The files of the library.
fn sources() -> Vec<Source> {
    let files = sources_in("src");
    assert!(files.len() > 50, "{} files found", files.len());
    files
}

/// All Rust files in a folder of the package; none if there is no such folder.
fn sources_in(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = root.is_dir().then(|| root.clone()).into_iter().collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // The fuzz target is a workspace of its own, and builds beside its sources.
                if !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push(Source { path: path.strip_prefix(&root).unwrap().to_owned(), text });
            }
        }
    }
    files
}

/// The first name of every path in `text` that begins with `crate::`, also of those in braces.
fn used_from_root(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for rest in text.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => used.extend(group_members(group).iter().map(|path| first_name(path))),
            None => drop(used.insert(first_name(rest))),
        }
    }
    used
}

/// The parts between commas, up to the brace that closes the group.
fn group_members(group: &str) -> Vec<String> {
    let mut members = vec![String::new()];
    let mut depth = 0;
    for letter in group.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => members.push(String::new()),
            _ if depth == 0 => members.last_mut().unwrap().push(letter),
            _ => {}
        }
    }
    members.retain(|member| !member.trim().is_empty());
    members
}

fn first_name(path: &str) -> String {
    path.trim_start().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

/// The modules, among those that have a file, from which `text` takes names: by paths that begin with `crate`, `super`
/// or `self`, and by those of its imports that begin with a module inside of it. `own` is the module of the text. Names
/// that are only passed on, by `pub use`, do not count.
fn used_modules(text: &str, own: &[String], files: &[Vec<String>]) -> BTreeSet<Vec<String>> {
    let mut used = BTreeSet::new();
    let mut note = |path: Vec<String>| {
        let longest =
            (0..=path.len()).rev().map(|length| path[..length].to_vec()).find(|path| files.contains(path));
        used.extend(longest.filter(|module| !module.is_empty() && module != own));
    };
    let text = text.replace("pub(in ", "pub(");
    let statements = text.split(';').map(str::trim);
    let plain = statements
        .filter(|statement| !statement.lines().any(|line| line.starts_with("pub") && line.contains(" use ")));
    for statement in plain {
        for path in paths_in(statement) {
            let names: Vec<&str> = path.split("::").map(str::trim).collect();
            let ascent = names.iter().take_while(|name| **name == "super").count();
            let rest = names[ascent.max(1)..].iter().map(|name| (*name).to_owned());
            match names[0] {
                _ if path.ends_with("super") => {}
                "crate" => note(rest.collect()),
                "self" => note(own.iter().cloned().chain(rest).collect()),
                "super" if ascent <= own.len() => {
                    note(own[..own.len() - ascent].iter().cloned().chain(rest).collect());
                }
                first => {
                    let inside: Vec<String> = own.iter().cloned().chain([first.to_owned()]).collect();
                    if statement.starts_with("use ") && files.contains(&inside) {
                        note(inside);
                    }
                }
            }
        }
    }
    used
}

/// All paths of a statement, those in braces written out.
fn paths_in(statement: &str) -> Vec<String> {
    let letter = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    if let Some(rest) =
        statement.rsplit_once("use ").map(|(_, rest)| rest).filter(|_| statement.contains("use "))
    {
        return expanded(rest);
    }
    statement
        .split(|other| !letter(other))
        .filter(|path| ["crate::", "super::", "self::"].iter().any(|root| path.starts_with(root)))
        .map(str::to_owned)
        .collect()
}

/// A tree of imports, written out.
fn expanded(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, group)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let members = group_members(group);
    members.iter().flat_map(|member| expanded(member)).map(|path| format!("{prefix}{path}")).collect()
}

/// The largest number of `super::` in a row.
fn longest_ascent(text: &str) -> usize {
    (1..).take_while(|times| text.contains(&"super::".repeat(*times))).count()
}

/// Name, first line and length of every function. Relies on the layout that `cargo fmt --check` demands: the brace or
/// semicolon that ends a function is on a line that is as far in as the function's first line.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some((before, name)) = code.split_once("fn ") else { continue };
        let qualifiers = ["pub", "const", "unsafe", "extern", "async"];
        let is_function = before.split(' ').all(|word| {
            word.is_empty()
                || word.starts_with('"')
                || qualifiers.iter().any(|known| word.starts_with(known))
                || word.ends_with(')')
        });
        if !is_function || !name.starts_with(|letter: char| letter.is_alphabetic() || letter == '_') {
            continue;
        }
        let indent = &line[..line.len() - code.len()];
        let ends = |line: &&str| {
            line.strip_prefix(indent).is_some_and(|rest| {
                rest == "}"
                    || !rest.starts_with(' ')
                        && (rest.ends_with(';') || rest.ends_with(" }") || rest.ends_with("{}"))
            })
        };
        let length = lines[index..].iter().position(ends).expect("the function ends") + 1;
        found.push((first_name(name), index + 1, length));
    }
    found
}

#[test]
fn files_are_short() {
    for folder in FOLDERS {
        let sources = sources_in(folder);
        assert!(!sources.is_empty(), "nothing in {folder}");
        for source in sources {
            let lines = source.text.lines().count();
            assert!(lines <= FILE_LINES, "{folder}/{} has {lines} lines", source.path.display());
        }
    }
}

#[test]
fn functions_are_short() {
    for folder in FOLDERS {
        for source in sources_in(folder) {
            for (name, line, length) in functions(&source.text) {
                let path = source.path.display();
                assert!(length <= FUNCTION_LINES, "{folder}/{path}:{line}: {name} has {length} lines");
            }
        }
    }
    let in_library: usize = sources().iter().map(|source| functions(&source.text).len()).sum();
    assert!(in_library > 100, "only {in_library} functions found");
}

#[test]
fn rooms_use_only_what_is_below_them() {
    let rooms = rooms();
    assert!(rooms.len() > 10, "{} rooms found", rooms.len());
    for (index, room) in rooms.iter().enumerate() {
        for used in &room.uses {
            let below = rooms[index + 1..].iter().any(|below| below.name == *used);
            assert!(below, "{used} is not below {}", room.name);
        }
    }
    let mut seen = BTreeSet::new();
    for source in sources() {
        let Some(layer) = source.layer() else { continue };
        let room =
            rooms.iter().find(|room| room.name == layer).unwrap_or_else(|| panic!("{layer} is no room"));
        for used in used_from_root(&source.code()) {
            let allowed = used == layer || room.uses.contains(&used);
            assert!(allowed, "src/{} uses crate::{used}", source.path.display());
            seen.insert((layer.clone(), used));
        }
        let ascent = longest_ascent(&source.code());
        assert!(ascent < source.modules().len(), "src/{} reaches the root by super::", source.path.display());
    }
    for room in &rooms {
        for used in &room.uses {
            let pair = (room.name.clone(), used.clone());
            assert!(seen.contains(&pair), "{} does not use {used}", room.name);
        }
    }
}

#[test]
fn no_two_files_use_each_other() {
    let mut seen = 0;
    for folder in ["src", "benches/src", "crates/c/src", "crates/terminal/src", "crates/tool/src"] {
        let files = sources_in(folder);
        assert!(files.len() > 2, "{} files found in {folder}", files.len());
        let uses = uses_of(&files);
        seen += uses.iter().map(BTreeSet::len).sum::<usize>();
        for start in 0..files.len() {
            let mut reached = BTreeSet::new();
            let mut next: Vec<usize> = uses[start].iter().copied().collect();
            while let Some(file) = next.pop() {
                if file == start {
                    let circle = reached.iter().filter(|&&file: &&usize| uses[file].contains(&start));
                    let last: Vec<_> = circle.map(|&file| files[file].path.display().to_string()).collect();
                    panic!("{folder}/{} uses files that use it: {last:?}", files[start].path.display());
                }
                if reached.insert(file) {
                    next.extend(&uses[file]);
                }
            }
        }
    }
    assert!(seen > 300, "{seen} uses are seen");
}

/// For each file the numbers of the files that it uses.
fn uses_of(files: &[Source]) -> Vec<BTreeSet<usize>> {
    let paths: Vec<Vec<String>> = files.iter().map(Source::modules).collect();
    let uses = files.iter().zip(&paths).map(|(file, own)| {
        let code = file.code();
        // Tests within a file come last.
        let code = code.split("mod tests {").next().unwrap();
        let used = used_modules(code, own, &paths);
        used.into_iter().filter_map(|module| paths.iter().position(|path| *path == module)).collect()
    });
    uses.collect()
}

#[test]
fn library_depends_on_little_and_uses_it() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let mut section = "";
    let mut dependencies = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            let hidden = section != "dependencies"
                && section.contains("dependencies")
                && !section.contains("dev-dependencies");
            assert!(!hidden, "dependencies belong into one section, not into {section}");
        } else if section == "dependencies" && !line.is_empty() && !line.starts_with('#') {
            let name = line.split([' ', '=', '.']).next().unwrap();
            dependencies.push(name.replace('-', "_"));
        }
    }
    assert!(dependencies.contains(&"libc".to_owned()));
    let code: String = sources().iter().map(Source::code).collect();
    for dependency in dependencies {
        assert!(DEPENDENCIES.contains(&dependency.as_str()), "{dependency} is a dependency");
        assert!(code.contains(&format!("{dependency}::")), "{dependency} is not used");
    }
}

#[test]
fn pointer_arithmetic_has_one_home() {
    let is_home =
        |source: &Source| POINTER_HOMES.iter().any(|home| source.path.to_string_lossy().starts_with(home));
    for source in sources().iter().filter(|source| !is_home(source)) {
        for (index, line) in source.code().lines().enumerate() {
            for token in POINTER_ARITHMETIC {
                assert!(!line.contains(token), "src/{}:{}: {token}", source.path.display(), index + 1);
            }
        }
    }
}

/// The functions above find what the checks need.
#[test]
fn the_checks_find_their_subjects() {
    let text = "use crate::{\n    a::{b, c},\n    d,\n};\nfn f() { crate::e::g() }";
    assert_eq!(used_from_root(text), ["a", "d", "e"].map(str::to_owned).into());
    let file = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    let files = [file("a"), file("a/b"), file("a/c"), file("d")];
    let text = "mod b;\npub(crate) use c::Sea;\nuse b::{Bee, Two};\nfn f() { crate::d::g(self::c::h) }";
    assert_eq!(used_modules(text, &file("a"), &files), [file("a/b"), file("a/c"), file("d")].into());
    assert_eq!(
        used_modules("use super::{A, c::Sea};\n", &file("a/b"), &files),
        [file("a"), file("a/c")].into()
    );
    assert_eq!(longest_ascent("use super::super::x; super::y"), 2);
    let text = "impl A {\n    pub(crate) unsafe extern \"C\" fn one(\n        a: u8,\n    ) -> u8 {\n        a\n    }\n\n    fn two(\n        b: u8,\n    );\n    fn three() {}\n}\n";
    assert_eq!(
        functions(text),
        [("one".to_owned(), 2, 5), ("two".to_owned(), 8, 3), ("three".to_owned(), 11, 1)]
    );
}
