//! The sentences that describe the findings of a replay, each with the place in the picture that shows it.

use smalloc_terminal::{Bytes, Count};

use super::Report;
use super::moment::Moment;
use crate::input::Sites;
use crate::replay::{ALIVE, GRANULE, Kind, Life, Lives, Tally, sizes_of_group};

/// The least bytes for a sentence, and the least share of top.
const LITTLE: u64 = 16 << 10;
const LITTLE_SHARE: u64 = 100;
/// A group grows if its blocks become more in each of so many parts of the trace; at most so many groups are listed.
const PARTS: usize = 8;
const MOST_GROWING: usize = 3;
/// Mean hops above which a search is long.
const LONG_SEARCH: f64 = 8.0;

/// A sentence, and its place in the picture.
#[derive(Debug, Default)]
pub(crate) struct Finding {
    pub(crate) text: String,
    /// The moment after this call; none is the end.
    pub(crate) call: Option<u32>,
    /// Offsets in granules.
    pub(crate) offsets: Option<(u64, u64)>,
    /// The group of blocks of the sentence.
    pub(crate) group: Option<usize>,
}

/// All findings.
pub(super) fn find(report: &Report<'_>) -> Vec<Finding> {
    let mut found = vec![peak(report)];
    let last = u32::try_from(report.replay.calls()).unwrap_or(ALIVE);
    let (gap, widest) = report.replay.series.widest;
    let widest = u32::try_from(widest).unwrap_or(ALIVE);
    let mut gap_at_end = 0;
    if report.lives.all.iter().any(|life| life.death == ALIVE) {
        let end = Moment::new(&report.lives, ALIVE);
        gap_at_end = (end.top() - end.used()) * GRANULE;
        found.extend(moment(report, &end, None));
    }
    // A moment much like the end adds nothing.
    if gap as u64 > LITTLE && gap as u64 > gap_at_end + gap_at_end / 8 && widest < last {
        found.extend(moment(report, &Moment::new(&report.lives, widest), Some(widest)));
    }
    found.extend(growing(report));
    found.extend(long_searches(report));
    found.extend(rounding(report));
    found.extend(dropped(&report.lives));
    found.extend(sample(report));
    found
}

fn bytes(granules: u64) -> Bytes {
    Bytes((granules * GRANULE) as usize)
}

/// "12 blocks of cache::insert", or "1 block of 48 B".
fn blocks_of(report: &Report<'_>, kind: Kind, count: usize, group: usize) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} block{plural} of {}", Count::from(count), report.group_name(kind, group))
}

fn peak(report: &Report<'_>) -> Finding {
    let (most, call) = report.replay.peak_live();
    let live = report.lives.all.iter().filter(|life| life.death == ALIVE);
    let (blocks, left) = live.fold((0, 0), |(blocks, left), life| (blocks + 1, left + life.size));
    let end = match blocks {
        0 => "At the end everything was freed.".to_owned(),
        _ => format!("At the end {} were in use, in {} blocks.", Bytes(left as usize), Count(blocks)),
    };
    let text = format!("The most bytes in use were {most}, after call {}. {end}", Count(call));
    Finding { text, call: u32::try_from(call).ok(), ..Finding::default() }
}

/// The blocks that keep memory from being returned at one moment, those that keep top, and the largest hole.
fn moment(report: &Report<'_>, moment: &Moment<'_>, call: Option<u32>) -> Vec<Finding> {
    let (top, used) = (moment.top(), moment.used());
    let enough = |granules: u64| granules * GRANULE >= LITTLE && granules >= top / LITTLE_SHARE;
    let mut found = Vec::new();
    if !enough(top - used) {
        return found;
    }
    let share = format!("{} of the {} below top", bytes(top - used), bytes(top));
    let (text, when) = match call {
        None => (format!("At the end, {share} were free."), "At the end"),
        Some(call) => {
            (format!("Most was free below top after call {}: {share}.", Count(call.into())), "At that moment")
        }
    };
    found.push(Finding { text, call, ..Finding::default() });
    if let Some((group, count, pinned)) = most_pinned(report, moment).filter(|most| enough(most.2)) {
        let (blocks, pinned) = (blocks_of(report, report.kind, count, group), bytes(pinned));
        let than = if report.kind == Kind::Site { "of any other site" } else { "of any other size" };
        let text = format!(
            "{when}, {blocks} kept {pinned} from going back to the system, more than those {than}: the free bytes of \
             the pages that they lay on."
        );
        found.push(Finding { text, call, group: Some(group), ..Finding::default() });
    }
    // Where stacks are a sample, that of the highest block is seldom known.
    let is_sample = report.sites.as_ref().is_some_and(Sites::is_sample);
    let kind = if is_sample { Kind::Size } else { report.kind };
    if let Some(highest) = moment.highest(|life| kind.group(life)).filter(|it| enough(it.keeps)) {
        let (blocks, keeps) = (blocks_of(report, kind, highest.blocks, highest.group), bytes(highest.keeps));
        let them = if highest.blocks == 1 { "it" } else { "them" };
        let text = format!("{when}, {blocks} lay highest: without {them} top would have been {keeps} lower.");
        let offsets = Some((highest.offset, top));
        let group = Some(highest.group).filter(|_| kind == report.kind);
        found.push(Finding { text, call, offsets, group });
    }
    if let Some(hole) = moment.largest_hole().filter(|hole| enough(hole.granules)) {
        let below = hole.below.map_or("the beginning of the region".to_owned(), |life| told(report, life));
        let text = format!(
            "{when}, the largest hole was {} at offset {:#x}, between {below} and {}.",
            bytes(hole.granules),
            hole.offset * GRANULE,
            told(report, hole.above)
        );
        let offsets = Some((hole.offset, hole.offset + hole.granules));
        found.push(Finding { text, call, offsets, group: None });
    }
    found
}

/// A block, for a sentence.
fn told(report: &Report<'_>, life: &Life) -> String {
    let site = match report.kind {
        Kind::Site if life.site > 0 => {
            format!(" of {}", report.group_name(Kind::Site, life.site as usize))
        }
        Kind::Site | Kind::Stack | Kind::Size | Kind::Thread => String::new(),
    };
    match life.birth {
        0 => format!("a block of {}{site} (in use from the beginning)", Bytes(life.size as usize)),
        call => {
            format!("a block of {}{site} (placed by call {})", Bytes(life.size as usize), Count(call.into()))
        }
    }
}

/// The group whose blocks keep most memory from being returned, the number of the blocks, and granules.
fn most_pinned(report: &Report<'_>, moment: &Moment<'_>) -> Option<(usize, usize, u64)> {
    let groups = report.lives.tallies.of(report.kind).len();
    let mut pinned = vec![(0, 0.0); groups];
    for (life, pin) in moment.blocks.iter().zip(moment.pins()) {
        let group: &mut (usize, f64) = &mut pinned[report.kind.group(life)];
        let weight = report.kind.weight(life);
        *group = (group.0 + if pin > 0.0 { weight as usize } else { 0 }, group.1 + weight as f64 * pin);
    }
    let most = pinned.iter().enumerate().max_by(|a, b| a.1.1.total_cmp(&b.1.1));
    most.map(|(group, &(count, granules))| (group, count, granules as u64))
}

/// The groups whose bytes in use grew in each part of the trace, and are a good share of all at its end.
fn growing(report: &Report<'_>) -> Vec<Finding> {
    let calls = report.replay.calls();
    let ends: Vec<u64> = (1..=PARTS as u64).map(|part| calls * part / PARTS as u64).collect();
    // At the very end a program frees everything, so the last part is checked just before it.
    let ends = ends.iter().map(|&end| end.min(calls - calls / 64)).collect::<Vec<_>>();
    let mut live = vec![[0_u64; PARTS]; report.lives.tallies.of(report.kind).len()];
    for life in &report.lives.all {
        let (from, to) = (u64::from(life.birth), u64::from(life.death));
        let weight = report.kind.weight(life);
        if weight == 0 {
            continue;
        }
        for (part, &end) in ends.iter().enumerate() {
            let is_live = from <= end && (end < to || life.death == ALIVE);
            live[report.kind.group(life)][part] += if is_live { weight * life.size } else { 0 };
        }
    }
    let all: u64 = live.iter().map(|parts| parts[PARTS - 1]).sum();
    let grew = |parts: &[u64; PARTS]| {
        let enough = parts[PARTS - 1] * LITTLE_SHARE >= all && parts[PARTS - 1] >= LITTLE;
        enough && parts.windows(2).all(|pair| pair[0] < pair[1])
    };
    let mut grown: Vec<_> = live.iter().enumerate().filter(|(_, parts)| grew(parts)).collect();
    grown.sort_by_key(|(_, parts)| std::cmp::Reverse(parts[PARTS - 1]));
    let sentence = |(group, parts): (usize, &[u64; PARTS])| Finding {
        text: format!(
            "Blocks of {} only became more: {} after an eighth of the calls, {} at half, {} near the end.",
            report.group_name(report.kind, group),
            Bytes(parts[0] as usize),
            Bytes(parts[PARTS / 2 - 1] as usize),
            Bytes(parts[PARTS - 1] as usize)
        ),
        group: Some(group),
        ..Finding::default()
    };
    grown.into_iter().take(MOST_GROWING).map(sentence).collect()
}

/// The group whose searches were longest, if they were long.
fn long_searches(report: &Report<'_>) -> Option<Finding> {
    let mean = |tally: &Tally| tally.hops as f64 / tally.blocks.max(1) as f64;
    let tallies = report.lives.tallies.of(report.kind);
    let all: u64 = tallies.iter().map(|tally| tally.hops).sum();
    let many = tallies.iter().enumerate().filter(|(_, tally)| tally.hops * 20 >= all);
    let (group, longest) = many.max_by(|a, b| mean(a.1).total_cmp(&mean(b.1)))?;
    (mean(longest) >= LONG_SEARCH).then(|| Finding {
        text: format!(
            "Searches for {} took {:.1} hops in the mean, {} at most, in {} requests.",
            report.group_name(report.kind, group),
            mean(longest),
            Count(longest.most_hops.into()),
            Count(longest.blocks)
        ),
        group: Some(group),
        ..Finding::default()
    })
}

/// The bytes that rounding takes at the peak.
fn rounding(report: &Report<'_>) -> Option<Finding> {
    let (live, call) = report.replay.peak_live();
    let used = report.replay.used_at_peak();
    let lost = used.0.saturating_sub(live.0);
    (lost > 0).then(|| Finding {
        text: format!(
            "Rounding sizes up to {GRANULE} bytes took {} at the peak, {:.1} % of the bytes in use.",
            Bytes(lost),
            100.0 * lost as f64 / used.0 as f64
        ),
        call: u32::try_from(call).ok(),
        ..Finding::default()
    })
}

/// How the numbers of sites are estimated.
fn sample(report: &Report<'_>) -> Option<Finding> {
    let sites = report.sites.as_ref().filter(|sites| sites.is_sample())?;
    let taken = report.lives.all.iter().filter(|life| life.stack > 0).count();
    let interval = Bytes(usize::try_from(sites.interval).unwrap_or(usize::MAX));
    let text = format!(
        "The call stacks of {} blocks are known, one in {interval} on average. The numbers of sites are estimates.",
        Count::from(taken)
    );
    Some(Finding { text, ..Finding::default() })
}

/// The lives that are not in the picture one by one.
fn dropped(lives: &Lives) -> Option<Finding> {
    let dropped = lives.residue.dropped();
    (dropped > 0).then(|| Finding {
        text: format!(
            "The picture shows {} blocks one by one. The other {}, which were the smallest and shortest, are in its \
             shading and in all sums.",
            Count::from(lives.all.len()),
            Count(dropped)
        ),
        ..Finding::default()
    })
}

impl Report<'_> {
    /// The name of a group of blocks: of a site, a stack, a size or a thread.
    pub(super) fn group_name(&self, kind: Kind, group: usize) -> String {
        group_name(kind, group, self.sites.as_ref(), &self.lives.threads)
    }
}

/// The name of a group of blocks: of a site, a stack, a size or a thread.
pub(crate) fn group_name(kind: Kind, group: usize, sites: Option<&Sites>, threads: &[u32]) -> String {
    match kind {
        Kind::Site => match (sites, group) {
            (None, _) | (_, 0) => "an unknown site".to_owned(),
            (Some(sites), site) => sites.name(site as u32).to_owned(),
        },
        Kind::Stack => match (sites, group) {
            (None, _) | (_, 0) => "an unknown stack".to_owned(),
            (Some(sites), stack) => sites.name(sites.site_of(stack as u32)).to_owned(),
        },
        Kind::Size => match sizes_of_group(group) {
            (low, high) if low == high => Bytes(low as usize).to_string(),
            (low, high) => format!("{} to {}", Bytes(low as usize), Bytes(high as usize)),
        },
        Kind::Thread => match threads.get(group) {
            None | Some(0) => "an unknown thread".to_owned(),
            Some(thread) => format!("thread {thread}"),
        },
    }
}
