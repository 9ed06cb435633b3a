//! The frames of call stacks, each name once.

use std::collections::HashMap;

use super::Replayed;
use crate::replay::{Kind, sizes_of_group};

/// The frames of the groups of a replay.
pub(crate) struct Frames<'a> {
    of: &'a Replayed<'a>,
    /// Each name once, in the order in which it was asked for.
    pub(super) names: Vec<String>,
    numbers: HashMap<String, usize>,
}

/// A name, taken apart.
pub(super) struct Parts<'a> {
    pub(super) function: &'a str,
    /// The end of the path, and the line; empty and 0 if they are not known.
    pub(super) file: &'a str,
    pub(super) line: u32,
}

impl<'a> Frames<'a> {
    pub(super) fn new(of: &'a Replayed<'a>) -> Self {
        Self { of, names: Vec::new(), numbers: HashMap::new() }
    }

    /// The frames of a group, as indexes of [`names`](Self::names): at least one, the innermost first.
    pub(super) fn of_group(&mut self, group: usize) -> Vec<usize> {
        let mut names = Vec::new();
        match (self.of.kind(), self.of.sites) {
            (Kind::Stack, Some(sites)) => {
                let frames = sites.stack(group as u32);
                names.extend(frames.into_iter().map(|frame| sites.frames[frame as usize].clone()));
            }
            _ => names.push(blocks_of_size(group)),
        }
        if names.is_empty() {
            names.push("an unknown stack".to_owned());
        }
        names.into_iter().map(|name| self.number(name)).collect()
    }

    /// The index of a name.
    pub(super) fn number(&mut self, name: String) -> usize {
        *self.numbers.entry(name).or_insert_with_key(|name| {
            self.names.push(name.clone());
            self.names.len() - 1
        })
    }
}

fn blocks_of_size(group: usize) -> String {
    match sizes_of_group(group) {
        (low, high) if low == high => format!("blocks of {low} bytes"),
        (low, high) => format!("blocks of {low} to {high} bytes"),
    }
}

/// Takes a name apart: `function (folder/file.rs:12)`, or only a function.
pub(super) fn parts(name: &str) -> Parts<'_> {
    let place = name.strip_suffix(')').and_then(|name| name.rsplit_once(" ("));
    let parsed = place.and_then(|(function, place)| {
        let (file, line) = place.rsplit_once(':')?;
        Some(Parts { function, file, line: line.parse().ok()? })
    });
    parsed.unwrap_or(Parts { function: name, file: "", line: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        for (name, function, file, line) in [
            ("main (src/main.rs:12)", "main", "src/main.rs", 12),
            ("<Cache as Store<K>>::insert (a b/c.rs:1)", "<Cache as Store<K>>::insert", "a b/c.rs", 1),
            ("operator new(unsigned long)", "operator new(unsigned long)", "", 0),
            ("f(int (*)(int))", "f(int (*)(int))", "", 0),
            ("lib.so+0x10", "lib.so+0x10", "", 0),
        ] {
            let parts = parts(name);
            assert_eq!((parts.function, parts.file, parts.line), (function, file, line));
        }
    }
}
