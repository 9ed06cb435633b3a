//! The processed format of the Firefox Profiler: every allocation and every free with its place and call stack, and the
//! live bytes as a track.

use std::io::Write;

use anyhow::Result;
use fxprof_processed_profile::{
    CategoryHandle, Frame, FrameFlags, FrameInfo, Profile, ReferenceTimestamp, SamplingInterval, StackHandle,
    ThreadHandle, Timestamp,
};

use super::{CALL, Frames, Replayed};
use crate::replay::{ALIVE, GRANULE, Life};

/// Writes the file.
pub(super) fn write(of: &Replayed<'_>, out: &mut dyn Write) -> Result<()> {
    let epoch = ReferenceTimestamp::from_millis_since_unix_epoch(0.0);
    let mut profile = Profile::new(of.name, epoch, SamplingInterval::from_nanos(CALL));
    let process = profile.add_process(of.name, 1, after(0));
    // The crate files all samples of a process under its first thread, and a stack belongs to the thread that it was
    // made for. So there is one thread, and a frame tells the real one.
    let thread = profile.add_thread(process, 1, after(0), true);
    profile.set_thread_name(thread, "allocations of all threads");
    profile.add_initial_visible_thread(thread);
    profile.add_initial_selected_thread(thread);
    profile.set_symbolicated(true);
    profile.set_process_end_time(process, after(of.replay.calls()));
    profile.set_thread_end_time(thread, after(of.replay.calls()));
    let stacks = stacks(of, &mut profile, thread);
    for (call, is_birth, life) in events(&of.lives.all) {
        // Where stacks are a sample, a block that has one stands for several, and the others for nothing.
        let weight = of.kind().weight(life);
        if weight == 0 {
            continue;
        }
        let (address, size) = (u64::from(life.offset) * GRANULE, (weight * life.size).cast_signed());
        // Traces do not tell from where a block was freed.
        let (stack, size) = if is_birth { (stack_of(of, &stacks, life), size) } else { (None, -size) };
        profile.add_allocation_sample(thread, after(call.into()), stack, address, size);
    }
    let counter = profile.add_counter(process, "malloc", "Memory", "Live bytes");
    let (mut before, mut calls) = (0, 0);
    for bin in &of.replay.series.bins {
        let change = bin.sizes.live as f64 - before as f64;
        let made = u32::try_from(bin.end - calls).unwrap_or(u32::MAX);
        profile.add_counter_sample(counter, after(bin.end), change, made);
        (before, calls) = (bin.sizes.live, bin.end);
    }
    Ok(serde_json::to_writer(out, &profile)?)
}

/// The moment after a call.
fn after(call: u64) -> Timestamp {
    Timestamp::from_nanos_since_reference(call * CALL)
}

/// Births and deaths in the order of their calls. A call that moves a block frees it first.
fn events(lives: &[Life]) -> Vec<(u32, bool, &Life)> {
    let births = lives.iter().map(|life| (life.birth, true, life));
    let deaths = lives.iter().filter(|life| life.death != ALIVE).map(|life| (life.death, false, life));
    let mut events: Vec<_> = births.chain(deaths).collect();
    events.sort_by_key(|&(call, is_birth, _)| (call, is_birth));
    events
}

/// The stacks of each thread, by thread and by group.
type Stacks = Vec<Vec<Option<StackHandle>>>;

fn stack_of(of: &Replayed<'_>, stacks: &Stacks, life: &Life) -> Option<StackHandle> {
    stacks[life.thread as usize][of.kind().group(life)]
}

/// Makes the stacks that are used, from the outside in: the thread, if it is known, and the frames.
fn stacks(of: &Replayed<'_>, profile: &mut Profile, thread: ThreadHandle) -> Stacks {
    let kind = of.kind();
    let groups = of.lives.tallies.of(kind).len();
    let mut stacks = vec![vec![None; groups]; of.lives.threads.len()];
    let mut frames = Frames::new(of);
    for life in &of.lives.all {
        let (number, group) = (life.thread as usize, kind.group(life));
        if stacks[number][group].is_none() {
            let root = Some(of.lives.threads[number]).filter(|&thread| thread != 0);
            let root = root.map(|thread| format!("thread {thread}"));
            let inner = frames.of_group(group).into_iter().rev().map(|frame| frames.names[frame].as_str());
            let labels: Vec<FrameInfo> =
                root.as_deref().into_iter().chain(inner).map(|name| label(profile, name)).collect();
            stacks[number][group] = profile.intern_stack_frames(thread, labels.into_iter());
        }
    }
    stacks
}

fn label(profile: &mut Profile, name: &str) -> FrameInfo {
    FrameInfo {
        frame: Frame::Label(profile.intern_string(name)),
        category_pair: CategoryHandle::OTHER.into(),
        flags: FrameFlags::empty(),
    }
}
