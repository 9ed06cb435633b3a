//! Reports: one file of HTML that describes where the memory of a program went, and draws it.
//!
//! - [`moment`] finds the holders of memory at one moment.
//! - [`pins`] sums what each group of blocks keeps from going back.
//! - [`findings`] describes in words what stands out.
//! - [`columns`] packs the lives of all blocks.
//! - [`page`] puts all of it into one file, together with the styles and the scripts in the folder `page`.

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

/// The replay of a trace, and its findings.
pub(crate) struct Report<'a> {
    /// The name of the trace.
    name: String,
    /// The kind of the trace, as in "a recording of smalloc".
    format: &'static str,
    replay: &'a Replay,
    lives: Lives,
    sites: Option<Sites>,
    /// The grouping in findings: by site if the trace has sites.
    kind: Kind,
    findings: Vec<Finding>,
}

impl<'a> Report<'a> {
    /// The report of a trace that was replayed to its end, with the lives of its blocks.
    pub(crate) fn new(name: String, input: &Input, replay: &'a Replay, lives: Lives) -> Self {
        let sites = input.sites().cloned();
        let kind = if sites.is_some() { Kind::Site } else { Kind::Size };
        let format = input.format();
        let mut report = Self { name, format, replay, lives, sites, kind, findings: Vec::new() };
        report.findings = findings::find(&report);
        report
    }

    /// The sentences of the findings.
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
