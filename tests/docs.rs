//! The documentation: every page can be reached and is compiled, links lead somewhere, lines are short, and the tables
//! that name tests, files, features and variables name those that exist.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// A reader of the README should not have to scroll for long.
const README_LINES: usize = 200;
/// Characters of a line, except in tables and in what a program has printed: neither can be broken.
const LINE: usize = 120;
/// Words that stand for a noun at the beginning of a sentence, and make it a riddle.
const RIDDLES: [&str; 7] = ["What ", "Who ", "Whoever ", "Whom ", "Of ", "How many ", "Nobody "];

/// A page of Markdown.
struct Page {
    /// From the root of the package on, as in `docs/using.md`.
    path: PathBuf,
    text: String,
}

impl Page {
    fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { path: path.into(), text }
    }

    fn events(&self) -> impl Iterator<Item = (Event<'_>, Range<usize>)> {
        Parser::new_ext(&self.text, Options::ENABLE_TABLES).into_offset_iter()
    }

    /// The targets of all links and images, as they are written.
    fn links(&self) -> Vec<String> {
        let target = |event| match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                Some(dest_url.into_string())
            }
            _ => None,
        };
        self.events().filter_map(|(event, _)| target(event)).collect()
    }

    /// The files that links lead to, from the root of the package on, each with the heading that follows `#`, if any.
    fn targets(&self) -> Vec<(PathBuf, Option<String>)> {
        let folder = self.path.parent().unwrap();
        let links = self.links().into_iter().filter(|link| !link.contains("://"));
        let split = |link: String| match link.split_once('#') {
            Some((file, heading)) => (file.to_owned(), Some(heading.to_owned())),
            None => (link, None),
        };
        let resolve = |(file, heading): (String, _)| {
            let path = if file.is_empty() { self.path.clone() } else { normal(&folder.join(file)) };
            (path, heading)
        };
        links.map(split).map(resolve).collect()
    }

    /// The text of every block of this kind: paragraphs, items, cells or headings.
    fn blocks(&self, kind: fn(&TagEnd) -> bool) -> Vec<String> {
        let (mut blocks, mut text) = (Vec::new(), String::new());
        for (event, _) in self.events() {
            match event {
                Event::Start(Tag::Paragraph | Tag::Item | Tag::TableCell | Tag::Heading { .. }) => {
                    text.clear()
                }
                Event::Text(part) | Event::Code(part) => text.push_str(&part),
                Event::SoftBreak | Event::HardBreak => text.push(' '),
                Event::End(end) if kind(&end) => blocks.push(text.clone()),
                _ => {}
            }
        }
        blocks
    }

    /// The names by which links refer to the headings.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.blocks(|end| matches!(end, TagEnd::Heading(_)));
        headings.iter().map(|heading| anchor(heading)).collect()
    }

    /// The rows of all tables, each with its cells as they are written.
    fn rows(&self) -> Vec<Vec<&str>> {
        let mut rows = Vec::new();
        for (event, range) in self.events() {
            match event {
                Event::Start(Tag::TableHead | Tag::TableRow) => rows.push(Vec::new()),
                Event::Start(Tag::TableCell) => rows.last_mut().unwrap().push(&self.text[range]),
                _ => {}
            }
        }
        rows
    }

    /// The numbers of the lines in tables, and in blocks of program output.
    fn unbroken_lines(&self) -> BTreeSet<usize> {
        let line = |offset: usize| self.text[..offset].matches('\n').count();
        let unbroken = self.events().filter(|(event, _)| match event {
            Event::Start(Tag::Table(_)) => true,
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => **language == *"text",
            _ => false,
        });
        unbroken.flat_map(|(_, range)| line(range.start)..=line(range.end)).collect()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A path without `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut normal, part| {
        match part {
            Component::ParentDir => _ = normal.pop(),
            _ => normal.push(part),
        }
        normal
    })
}

/// The name that GitHub gives to a heading: in lower case, with hyphens for spaces, without punctuation.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// All files below a folder whose names end in `extension`, from the root of the package on.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries =
        walkdir::WalkDir::new(root().join(folder)).sort_by_file_name().into_iter().map(Result::unwrap);
    let entries = entries.filter(|entry| entry.path().extension().is_some_and(|found| found == extension));
    entries.map(|entry| entry.path().strip_prefix(root()).unwrap().to_owned()).collect()
}

fn docs() -> Vec<Page> {
    files("docs", "md").iter().map(|path| Page::read(path.to_str().unwrap())).collect()
}

fn pages() -> Vec<Page> {
    let mut pages = docs();
    assert!(pages.len() > 10, "{} pages found", pages.len());
    pages.extend(["README.md", "CHANGELOG.md", "crates/tool/README.md"].map(Page::read));
    pages
}

/// The text of a source without comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(root().join(path)).unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The comments of a source, each line by line joined to one text; an empty line ends one.
fn comments(text: &str) -> Vec<String> {
    let mut comments = vec![String::new()];
    for line in text.lines() {
        let comment =
            line.trim_start().strip_prefix("//").map(|rest| rest.trim_start_matches(['/', '!']).trim());
        match comment {
            Some(part) if !part.is_empty() => {
                let last = comments.last_mut().unwrap();
                last.push_str(part.trim_start_matches("- "));
                last.push(' ');
            }
            _ => comments.push(String::new()),
        }
    }
    comments
        .into_iter()
        .map(|comment| comment.trim_end().to_owned())
        .filter(|text| !text.is_empty())
        .collect()
}

/// The parts between backticks.
fn code_spans(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_readme_is_short() {
    let lines = Page::read("README.md").text.lines().count();
    assert!(lines <= README_LINES, "README.md has {lines} lines");
}

#[test]
fn every_page_is_linked_and_compiled() {
    let linked: BTreeSet<PathBuf> =
        Page::read("README.md").targets().into_iter().map(|(path, _)| path).collect();
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let (_, compiled) =
        library.split_once("#[cfg(doctest)]").expect("doc tests are at the end of src/lib.rs");
    assert!(compiled.contains(r#"include_str!("../README.md")"#), "README.md is not compiled");
    for page in docs() {
        let path = page.path.display();
        assert!(linked.contains(&page.path), "README.md has no link to {path}");
        assert!(
            compiled.contains(&format!("include_str!(\"../{path}\")")),
            "src/lib.rs does not compile {path}"
        );
    }
    assert!(linked.contains(Path::new("CHANGELOG.md")), "README.md has no link to CHANGELOG.md");
}

#[test]
fn lines_are_short() {
    let mut long = Vec::new();
    for page in pages() {
        let unbroken = page.unbroken_lines();
        let lines = page.text.lines().enumerate().filter(|(index, _)| !unbroken.contains(index));
        let too_long = lines.filter(|(_, line)| line.chars().count() > LINE);
        long.extend(too_long.map(|(index, _)| format!("{}:{}", page.path.display(), index + 1)));
    }
    assert!(long.is_empty(), "more than {LINE} characters: {long:#?}");
}

/// Readers on the web see the lines that rustdoc hides.
#[test]
fn code_hides_no_lines() {
    for page in pages() {
        let blocks = page.events().filter(|(event, _)| match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => language.starts_with("rust"),
            _ => false,
        });
        for (_, block) in blocks {
            let hidden = page.text[block].lines().find(|line| line.trim_start().starts_with("# "));
            assert!(hidden.is_none(), "{}: {}", page.path.display(), hidden.unwrap_or_default());
        }
    }
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        for (target, heading) in page.targets() {
            let (from, to) = (page.path.display(), target.display());
            assert!(root().join(&target).is_file(), "{from} links to {to}, which does not exist");
            if let Some(heading) = heading {
                let anchors = Page::read(target.to_str().unwrap()).anchors();
                assert!(
                    anchors.contains(&heading),
                    "{from} links to {to}#{heading}, but {to} has {anchors:?}"
                );
            }
        }
    }
}

#[test]
fn sentences_begin_with_their_subject() {
    let mut riddles = Vec::new();
    for page in pages() {
        let blocks = page.blocks(|end| {
            matches!(end, TagEnd::Paragraph | TagEnd::Item | TagEnd::TableCell | TagEnd::Heading(_))
        });
        let sentences =
            blocks.iter().filter(|block| !block.ends_with('?')).flat_map(|block| block.split(". "));
        let found = sentences.filter(|sentence| RIDDLES.iter().any(|word| sentence.starts_with(word)));
        riddles.extend(found.map(|sentence| format!("{}: {sentence}", page.path.display())));
    }
    assert!(riddles.is_empty(), "{riddles:#?}");
}

#[test]
fn comments_begin_with_their_subject() {
    let folders = ["src", "tests", "examples", "benches", "crates", "fuzz/targets"];
    let sources: Vec<PathBuf> = folders.into_iter().flat_map(|folder| files(folder, "rs")).collect();
    let mut sentences = 0;
    let mut riddles = Vec::new();
    for path in &sources {
        for comment in comments(&fs::read_to_string(root().join(path)).unwrap()) {
            for sentence in comment.split_inclusive(". ").filter(|sentence| !sentence.ends_with('?')) {
                sentences += 1;
                if RIDDLES.iter().any(|word| sentence.starts_with(word)) {
                    riddles.push(format!("{}: {sentence}", path.display()));
                }
            }
        }
    }
    assert!(sentences > 5000, "{sentences} sentences are seen");
    assert!(riddles.is_empty(), "{riddles:#?}");
}

#[test]
fn tests_of_promises_exist() {
    let page = Page::read("docs/promises.md");
    let sources: Vec<(PathBuf, String)> = ["tests", "crates"]
        .into_iter()
        .flat_map(|folder| files(folder, "rs"))
        .map(|path| (path.clone(), code(&path)))
        .collect();
    let mut promises = 0;
    let mut in_table = false;
    for row in page.rows() {
        let &[promise, tests] = row.as_slice() else { continue };
        // A table's head begins it.
        if [promise, tests].map(str::trim) == ["promise", "tests"] || promise.trim().is_empty() {
            in_table = !promise.trim().is_empty();
            continue;
        }
        if !in_table {
            continue;
        }
        promises += 1;
        let names = code_spans(tests);
        assert!(!names.is_empty(), "no test holds: {promise}");
        for name in names {
            let (program, test) =
                name.split_once("::").unwrap_or_else(|| panic!("{name} is no PROGRAM::TEST"));
            let of_program = |path: &Path| {
                let mut inside = path.iter().skip_while(|part| *part != "tests").skip(1);
                inside.next().is_some_and(|part| Path::new(part).with_extension("") == Path::new(program))
            };
            let declared = |code: &str| {
                [format!("fn {test}("), format!("fn {test}<")].iter().any(|head| code.contains(head))
            };
            let exists = sources.iter().any(|(path, code)| of_program(path) && declared(code));
            assert!(exists, "there is no test {name}");
        }
    }
    assert!(promises > 30, "{promises} promises found");
}

#[test]
fn unsafe_code_is_listed() {
    let page = Page::read("docs/unsafe.md");
    let rows = page.rows();
    let listed: BTreeSet<PathBuf> = rows
        .iter()
        .flat_map(|row| code_spans(row[0]))
        .filter(|name| name.starts_with("src/"))
        .map(PathBuf::from)
        .collect();
    let forms = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe trait", "unsafe("];
    let is_unsafe = |path: &PathBuf| forms.iter().any(|form| code(path).contains(form));
    let found: BTreeSet<PathBuf> = files("src", "rs").into_iter().filter(is_unsafe).collect();
    assert!(found.len() > 20, "{} files found", found.len());
    let missing: Vec<_> = found.difference(&listed).collect();
    assert!(missing.is_empty(), "docs/unsafe.md does not list {missing:?}");
    let stale: Vec<_> = listed.difference(&found).collect();
    assert!(stale.is_empty(), "docs/unsafe.md lists {stale:?}, which have no unsafe code");
}

#[test]
fn features_and_variables_are_listed() {
    let readme = Page::read("README.md");
    let rows = readme.rows();
    let listed: BTreeSet<&str> = rows.iter().flat_map(|row| code_spans(row[0])).collect();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, features) = manifest.split_once("[features]\n").unwrap();
    let (features, _) = features.split_once("\n[").unwrap();
    for feature in features.lines().filter_map(|line| line.split_once(" = ")) {
        assert!(listed.contains(feature.0), "README.md does not list the feature {}", feature.0);
    }
    let variables = |text: &str| -> BTreeSet<String> {
        let rest = text.split("SMALLOC_").skip(1);
        let names = rest.map(|rest| rest.chars().take_while(char::is_ascii_uppercase).collect::<String>());
        // Names that begin with TEST are left to programs that test the library.
        names
            .filter(|name| !name.is_empty() && name != "TEST")
            .map(|name| format!("SMALLOC_{name}"))
            .collect()
    };
    let used: BTreeSet<String> = files("src", "rs").iter().flat_map(|path| variables(&code(path))).collect();
    assert!(used.len() > 3, "only {used:?} found");
    for variable in used {
        assert!(listed.contains(variable.as_str()), "README.md does not list the variable {variable}");
    }
}

/// Commands name the sources of crates by version, so that their numbers are the same everywhere.
#[test]
fn sources_in_commands_are_those_of_the_lock_file() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut crates = 0;
    for page in pages() {
        for rest in page.text.split("/registry/src/*/").skip(1) {
            let named = |c: &char| c.is_alphanumeric() || ['-', '_', '.'].contains(c);
            let name: String = rest.chars().take_while(named).collect();
            let Some((package, version)) = name.rsplit_once('-') else { continue };
            let locked = lock.contains(&format!("name = \"{package}\"\nversion = \"{version}\"\n"));
            assert!(locked, "{} names {name}, which is not in Cargo.lock", page.path.display());
            crates += 1;
        }
    }
    assert!(crates > 2, "{crates} sources found");
}

/// The checks above see what they look for.
#[test]
fn the_checks_find_their_subjects() {
    let text = "# The `x`, and y\n\nOne [link](../a.md#b) and\nan ![image](c.svg). What is it.\n\n\
                | a | b |\n|---|---|\n| `d` | e |\n\n```text\nlong\n```\n\n- item\n";
    let page = Page { path: "docs/page.md".into(), text: text.into() };
    assert_eq!(page.anchors(), [anchor("The x, and y")].into());
    assert_eq!(anchor("The x, and y"), "the-x-and-y");
    assert_eq!(page.targets(), [("a.md".into(), Some("b".to_owned())), ("docs/c.svg".into(), None)]);
    assert_eq!(page.blocks(|end| *end == TagEnd::Paragraph), ["One link and an image. What is it."]);
    assert_eq!(page.blocks(|end| *end == TagEnd::Item), ["item"]);
    assert_eq!(page.rows().iter().map(|row| row[0].trim()).collect::<Vec<_>>(), ["a", "`d`"]);
    assert_eq!(page.unbroken_lines(), (5..=8).chain(9..=11).collect());
    assert_eq!(code_spans("`a`, `b::c` d"), ["a", "b::c"]);
    assert_eq!(
        comments("//! One.\n//! Two\n//!\n//! - item\nlet x = 1;\n    // three\n"),
        ["One. Two", "item", "three"]
    );
}
