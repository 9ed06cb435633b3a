//! Reports: one file of HTML that tells where the memory of a program went, and draws it.
//!
//! - [`moment`] tells who holds what at one moment.
//! - [`pins`] sums what each group of blocks keeps from going back.
//! - [`findings`] says in words what stands out.
//! - [`columns`] packs the lives of all blocks.
//! - [`page`] puts all of it into one file, beside the styles and the scripts in the folder `page`.

mod columns;
mod findings;
mod moment;
mod page;
mod pins;

use anyhow::Result;

use crate::input::{Input, Sites};
use crate::replay::{Kind, Lives, Replay};
pub(crate) use findings::{Finding, group_name};
pub(crate) use pins::Pins;

/// The replay of a trace, and what stands out in it.
pub(crate) struct Report<'a> {
    /// The name of the trace.
    name: String,
    /// The kind of the trace, as in "a recording of smalloc".
    format: &'static str,
    replay: &'a Replay,
    lives: Lives,
    sites: Option<Sites>,
    /// How the findings group blocks: by site if the trace tells the sites.
    kind: Kind,
    findings: Vec<Finding>,
}

impl<'a> Report<'a> {
    /// Of a trace that was replayed to its end, with the lives of its blocks.
    pub(crate) fn new(name: String, input: &Input, replay: &'a Replay, lives: Lives) -> Self {
        let sites = input.sites().cloned();
        let kind = if sites.is_some() { Kind::Site } else { Kind::Size };
        let format = input.format();
        let mut report = Self { name, format, replay, lives, sites, kind, findings: Vec::new() };
        report.findings = findings::find(&report);
        report
    }

    /// The sentences that tell what stands out.
    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The page.
    ///
    /// # Errors
    ///
    /// If its parts cannot be packed.
    pub(crate) fn page(&mut self) -> Result<Vec<u8>> {
        page::page(self)
    }
}
