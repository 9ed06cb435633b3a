//! The work of the example `ast`, apart from its heap: parses files into syntax trees, and walks them. `smalloc-bench
//! programs` does the same work with other allocators.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::thread;

use syn::visit::{self, Visit};

/// syn descends once for each level of nesting, and generated sources nest deeply. The stack is mapped, not touched.
const STACK_SIZE: usize = 64 << 20;

/// Runs `work` on a thread whose stack is large enough for deeply nested sources.
pub(crate) fn on_large_stack<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Box<dyn Error>> {
    let thread = thread::Builder::new().stack_size(STACK_SIZE).spawn(work)?;
    Ok(thread.join().map_err(|_| "the parser panicked")?)
}

/// The numbers of files read, and of those that gave no tree.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) bytes: usize,
    pub(crate) unreadable: u64,
    pub(crate) not_rust: u64,
}

/// Parses each file that has no tree. Files that cannot be read or parsed stay without one, and are counted.
///
/// `before` is called with the file's index and its length in bytes before the file is parsed, and its error ends the
/// work.
pub(crate) fn parse_missing<E>(
    files: &[PathBuf],
    trees: &mut [Option<syn::File>],
    mut before: impl FnMut(usize, usize) -> Result<(), E>,
) -> Result<Sources, E> {
    let mut sources = Sources::default();
    for (index, (file, tree)) in files.iter().zip(trees).enumerate().filter(|(_, (_, tree))| tree.is_none()) {
        let Ok(source) = fs::read_to_string(file) else {
            sources.unreadable += 1;
            continue;
        };
        before(index, source.len())?;
        *tree = syn::parse_file(&source).ok();
        sources.bytes += source.len();
        sources.not_rust += u64::from(tree.is_none());
    }
    Ok(sources)
}

/// The numbers of nodes that a walk over all trees counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) files: u64,
    pub(crate) items: u64,
    pub(crate) statements: u64,
    pub(crate) expressions: u64,
    pub(crate) patterns: u64,
    pub(crate) types: u64,
    pub(crate) idents: u64,
    depth: u64,
    pub(crate) deepest: u64,
}

/// Walks all trees and counts their nodes; calls `after` for each tree.
pub(crate) fn walk(trees: &[Option<syn::File>], mut after: impl FnMut()) -> Census {
    let mut census = Census::default();
    for tree in trees {
        if let Some(tree) = tree {
            census.visit_file(tree);
        }
        after();
    }
    census
}

impl<'ast> Visit<'ast> for Census {
    fn visit_file(&mut self, node: &'ast syn::File) {
        self.files += 1;
        visit::visit_file(self, node);
    }

    fn visit_item(&mut self, node: &'ast syn::Item) {
        self.items += 1;
        visit::visit_item(self, node);
    }

    fn visit_stmt(&mut self, node: &'ast syn::Stmt) {
        self.statements += 1;
        visit::visit_stmt(self, node);
    }

    fn visit_expr(&mut self, node: &'ast syn::Expr) {
        self.expressions += 1;
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        visit::visit_expr(self, node);
        self.depth -= 1;
    }

    fn visit_pat(&mut self, node: &'ast syn::Pat) {
        self.patterns += 1;
        visit::visit_pat(self, node);
    }

    fn visit_type(&mut self, node: &'ast syn::Type) {
        self.types += 1;
        visit::visit_type(self, node);
    }

    fn visit_ident(&mut self, _: &'ast syn::Ident) {
        self.idents += 1;
    }
}
