//! Replays a trace on heaps, and gathers the numbers for its pictures.

mod late_frees;
mod life;
mod lives;
mod player;
mod raster;
mod residue;
mod script;
mod series;
mod tally;

use std::collections::BTreeMap;

use anyhow::{Error, Result, ensure};
use smalloc::recording::Head;
use smalloc::{Snapshot, Stats};
use smalloc_terminal::{Bytes, List};

use crate::input::Input;
pub(crate) use life::{ALIVE, GRANULE, Life};
pub(crate) use lives::Lives;
pub(crate) use raster::{GRANULE as RASTER_GRANULE, ROWS as RASTER_ROWS, Raster};
pub(crate) use residue::{COLUMNS as RESIDUE_COLUMNS, Residue};
pub(crate) use script::{Change, Compared};
use script::{Script, Step};
pub(crate) use series::{Bin, Series, Sizes};
pub use tally::Kind;
pub(crate) use tally::{Tally, sizes_of_group};

/// The region for a trace that does not tell its size, in bytes.
const REGION: usize = 32 << 30;

/// A trace, replayed on one heap for each list.
pub struct Replay {
    script: Script,
    pub(crate) raster: Raster,
    pub(crate) series: Series,
    /// The call after which a snapshot is taken.
    at: Option<u64>,
    /// The call after which the replay stops.
    last: Option<u64>,
    snapshot: Option<Snapshot>,
    /// The lives of all blocks, if they are kept.
    lives: Option<Lives>,
    /// The reason why the heap cannot be compared with the recording; none if the trace is not a recording, too.
    incomparable: Option<String>,
}

impl Replay {
    /// Makes the heaps for a trace. The default of `lists` and of `region`, in bytes, is the recording's, or else one
    /// indexed list and 32 GiB. A snapshot is taken after call `at`, counted from 1, or at the end.
    ///
    /// # Errors
    ///
    /// If the system refuses a heap its addresses.
    pub fn new(input: &Input, lists: &[List], region: Option<usize>, at: Option<u64>) -> Result<Self> {
        let head = input.head();
        let region = region.or(head.map(|head| head.region_size)).unwrap_or(REGION);
        let recorded = [head.and_then(|head| head.list().parse().ok()).unwrap_or(List::Indexed)];
        let lists = if lists.is_empty() { &recorded } else { lists };
        let players =
            lists.iter().map(|&list| player::player(list, region)).collect::<Result<Vec<_>, _>>()?;
        // A heap may have got more or less than requested.
        let region = players.first().map_or(region, |player| player.stats().region_size);
        let incomparable = head.and_then(|head| incomparable(head, region));
        let comparable = head.filter(|_| incomparable.is_none());
        let series = Series::new(players.len());
        let script = Script::new(players, comparable);
        Ok(Self {
            script,
            raster: Raster::new(),
            series,
            at,
            last: None,
            snapshot: None,
            lives: None,
            incomparable,
        })
    }

    /// Keeps the lives of all blocks from now on, as reports need them.
    pub(crate) fn keep_lives(&mut self) {
        self.lives = Some(Lives::new());
    }

    /// Stops the replay after a call, counted from 1; at the end if there is none.
    pub(crate) fn stop_after(&mut self, call: Option<u64>) {
        self.last = call;
    }

    /// Takes the lives of all blocks, if they were kept.
    pub(crate) fn take_lives(&mut self) -> Option<Lives> {
        self.lives.take()
    }

    /// Replays the rest of a trace. `called` gets the number of each call that has been made.
    ///
    /// The error in the outcome says where the trace could not be read on; what comes before has been replayed.
    ///
    /// # Errors
    ///
    /// If the trace could not be read at all, a heap does not do as the other or as the recording, or it is damaged.
    pub fn run(&mut self, input: &mut Input, mut called: impl FnMut(u64)) -> Result<Option<Error>> {
        let mut step = Step::default();
        let mut unread = None;
        while self.last.is_none_or(|last| self.calls() < last) {
            let event = match input.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) if self.calls() == 0 => return Err(error),
                Err(error) => {
                    unread = Some(error);
                    break;
                }
            };
            let before = self.calls();
            self.script.play(event, &mut step)?;
            self.gather(&step, self.calls() > before)?;
            called(self.calls());
        }
        self.series.finish(Sizes::of(&self.script.players[0].stats()));
        for player in &self.script.players {
            player.check()?;
        }
        if self.at.is_none() {
            self.snapshot = Some(self.script.players[0].snapshot()?);
        }
        Ok(unread)
    }

    /// Gathers a step for the pictures. `is_call` if it was a call.
    fn gather(&mut self, step: &Step, is_call: bool) -> Result<()> {
        if let Some(lives) = &mut self.lives {
            let call = u32::try_from(self.script.calls).unwrap_or(ALIVE);
            ensure!(call < ALIVE, "a report has room for {ALIVE} calls: record a shorter part");
            lives.step(step, call);
        } else {
            step.changes.iter().for_each(|&change| self.raster.change(change));
        }
        let reached = step.changes.iter().filter(|change| change.in_use).map(Change::end).max();
        let sizes = Sizes {
            live: self.script.live,
            used: self.script.used,
            top: reached.unwrap_or(0),
            ..Sizes::default()
        };
        if !is_call {
            self.series.start(sizes);
            return Ok(());
        }
        self.raster.tick();
        let (call, player) = (self.script.calls, &self.script.players[0]);
        self.series.tick(call, &step.hops, sizes, || Sizes::of(&player.stats()));
        if self.at == Some(call) {
            self.snapshot = Some(player.snapshot()?);
        }
        Ok(())
    }

    /// The number of calls replayed.
    pub fn calls(&self) -> u64 {
        self.script.calls
    }

    /// Bytes that the program has in use now, without rounding.
    pub fn live(&self) -> Bytes {
        Bytes(self.script.live)
    }

    /// The most bytes that were in use, and the first call after which they were.
    pub fn peak_live(&self) -> (Bytes, u64) {
        (Bytes(self.script.peak_live.0), self.script.peak_live.1)
    }

    /// Bytes that were in use at the peak, with rounding.
    pub(crate) fn used_at_peak(&self) -> Bytes {
        Bytes(self.script.used_at_peak)
    }

    /// The calls that were left out or changed, by the reason.
    pub fn skipped(&self) -> BTreeMap<&'static str, u64> {
        self.script.skipped()
    }

    /// The name of each heap's list, and its numbers.
    pub fn stats(&self) -> Vec<(&'static str, Stats)> {
        self.script.players.iter().map(|player| (player.list(), player.stats())).collect()
    }

    /// The first heap at the chosen moment; none if the replay has not reached it.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// The result of the comparison with the recording, or the reason why there is none.
    pub(crate) fn compared(&self) -> Result<&Compared, &str> {
        self.incomparable.as_deref().map_or(Ok(&self.script.compared), Err)
    }
}

/// The reason why a recording is not compared with its replay; none if it is.
fn incomparable(head: &Head, region: usize) -> Option<String> {
    if head.hardened {
        return Some("it was made with the feature `hardened`, which places differently".into());
    }
    let recorded = head.region_size;
    (region != recorded)
        .then(|| format!("its heap was of {}, this one is of {}", Bytes(recorded), Bytes(region)))
}
