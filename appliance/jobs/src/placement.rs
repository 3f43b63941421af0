//! What may start now, and on which GPUs. Pure: the machine, what runs and what waits go in, decisions come out.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Something that computes and is given to one job at a time: a GPU, or a slice of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its name, as containers are given it.
    pub name: String,
    /// Its memory in bytes.
    pub memory: u64,
}

/// What there is to share out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// GPUs; none on a machine that computes with its processor.
    pub slots: Vec<Slot>,
    /// Memory for all jobs together, in bytes.
    pub memory: u64,
    /// Most jobs that run at once.
    pub jobs: usize,
}

/// What a job needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    /// GPUs.
    pub gpus: u32,
    /// Memory on each of them, in bytes.
    pub gpu_memory: u64,
    /// Memory of the machine, in bytes. The job is held to it.
    pub memory: u64,
}

/// What a job was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Names of its GPUs.
    pub slots: Vec<String>,
    /// Memory of the machine, in bytes.
    pub memory: u64,
}

/// A job that could start, the most urgent first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting<I> {
    /// Which.
    pub id: I,
    /// What it needs.
    pub demand: Demand,
    /// Whether it has waited so long for room that nothing behind it may take room any more.
    pub is_overdue: bool,
}

/// Why a job can never run on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Not enough GPUs.
    #[error("it needs {wanted} GPUs, and this machine has {found}")]
    Slots {
        /// GPUs that it needs.
        wanted: u32,
        /// GPUs that there are.
        found: usize,
    },
    /// The GPUs are too small.
    #[error(
        "it needs {wanted} GPUs with {} MiB of memory each, and this machine has {found} of that size",
        memory / 1_048_576
    )]
    SlotMemory {
        /// GPUs that it needs.
        wanted: u32,
        /// Memory that each must have, in bytes.
        memory: u64,
        /// GPUs that have it.
        found: usize,
    },
    /// Not enough memory.
    #[error("it needs {} MiB of memory, and this machine has {} MiB for jobs", wanted / 1_048_576, found / 1_048_576)]
    Memory {
        /// Bytes that it needs.
        wanted: u64,
        /// Bytes that there are.
        found: u64,
    },
}

impl Machine {
    /// What is left of it without these GPUs.
    #[must_use]
    pub fn without(&self, slots: &BTreeSet<String>) -> Self {
        let left = self.slots.iter().filter(|slot| !slots.contains(&slot.name));
        Self { slots: left.cloned().collect(), ..*self }
    }

    /// Whether a job that needs this could run if it were alone.
    ///
    /// # Errors
    /// [`Impossible`] with what is missing.
    pub fn could_hold(&self, demand: Demand) -> Result<(), Impossible> {
        let Demand { gpus, gpu_memory, memory } = demand;
        let wanted = usize::try_from(gpus).unwrap_or(usize::MAX);
        if wanted > self.slots.len() {
            return Err(Impossible::Slots { wanted: gpus, found: self.slots.len() });
        }
        let found = self.slots.iter().filter(|slot| slot.memory >= gpu_memory).count();
        if wanted > found {
            return Err(Impossible::SlotMemory { wanted: gpus, memory: gpu_memory, found });
        }
        if memory > self.memory {
            return Err(Impossible::Memory { wanted: memory, found: self.memory });
        }
        Ok(())
    }
}

/// Decides what starts: each waiting job in order that fits into what is left. A later one may overtake one that does
/// not fit, until that one is overdue.
pub fn place<I: Clone>(machine: &Machine, running: &[Placement], waiting: &[Waiting<I>]) -> Vec<(I, Placement)> {
    let mut free = Free::of(machine, running);
    let mut starts = Vec::new();
    for job in waiting {
        match free.take(job.demand) {
            Some(placement) => starts.push((job.id.clone(), placement)),
            None if job.is_overdue && machine.could_hold(job.demand).is_ok() => break,
            None => {}
        }
    }
    starts
}

/// What is not given to any job.
struct Free<'a> {
    slots: Vec<&'a Slot>,
    memory: u64,
    jobs: usize,
}

impl<'a> Free<'a> {
    fn of(machine: &'a Machine, running: &[Placement]) -> Self {
        let taken: BTreeSet<&str> = running.iter().flat_map(|job| &job.slots).map(String::as_str).collect();
        let mut slots: Vec<&Slot> = machine.slots.iter().filter(|slot| !taken.contains(slot.name.as_str())).collect();
        // The smallest that do come first, so that the large ones stay for who needs them.
        slots.sort_by_key(|slot| slot.memory);
        let used = running.iter().fold(0_u64, |sum, job| sum.saturating_add(job.memory));
        Self { slots, memory: machine.memory.saturating_sub(used), jobs: machine.jobs.saturating_sub(running.len()) }
    }

    fn take(&mut self, demand: Demand) -> Option<Placement> {
        let wanted = usize::try_from(demand.gpus).ok()?;
        if self.jobs == 0 || demand.memory > self.memory {
            return None;
        }
        let chosen: Vec<&'a Slot> =
            self.slots.iter().copied().filter(|slot| slot.memory >= demand.gpu_memory).take(wanted).collect();
        if chosen.len() < wanted {
            return None;
        }
        self.slots.retain(|slot| !chosen.iter().any(|taken| taken.name == slot.name));
        let slots = chosen.into_iter().map(|slot| slot.name.clone()).collect();
        self.memory = self.memory.saturating_sub(demand.memory);
        self.jobs = self.jobs.saturating_sub(1);
        Some(Placement { slots, memory: demand.memory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn machine(memories: &[u64], memory: u64) -> Machine {
        let slot = |(index, memory): (usize, &u64)| Slot { name: format!("gpu{index}"), memory: *memory };
        Machine { slots: memories.iter().enumerate().map(slot).collect(), memory, jobs: 8 }
    }

    fn waits(id: u32, gpus: u32, gpu_memory: u64, memory: u64) -> Waiting<u32> {
        Waiting { id, demand: Demand { gpus, gpu_memory, memory }, is_overdue: false }
    }

    #[test]
    fn a_job_gets_the_smallest_gpu_that_is_large_enough() {
        let machine = machine(&[80, 24, 40], 100);
        let starts = place(&machine, &[], &[waits(1, 1, 30, 0), waits(2, 1, 10, 0), waits(3, 1, 60, 0)]);
        let names: Vec<&str> = starts.iter().map(|(_, placement)| placement.slots[0].as_str()).collect();
        assert_eq!(names, ["gpu2", "gpu1", "gpu0"]);
    }

    #[test]
    fn what_fits_overtakes_what_does_not_until_that_is_overdue() {
        let machine = machine(&[80, 80], 100);
        let running = [Placement { slots: vec!["gpu0".into()], memory: 0 }];
        let mut waiting = [waits(1, 2, 0, 0), waits(2, 1, 0, 0)];
        let started = |waiting: &[_]| place(&machine, &running, waiting).iter().map(|(id, _)| *id).collect::<Vec<_>>();
        assert_eq!(started(&waiting), [2]);
        waiting[0].is_overdue = true;
        assert_eq!(started(&waiting), [0_u32; 0]);
    }

    #[test]
    fn what_can_never_run_holds_nobody_up() {
        let machine = machine(&[80], 100);
        let waiting = [Waiting { is_overdue: true, ..waits(1, 2, 0, 0) }, waits(2, 1, 0, 0)];
        assert_eq!(place(&machine, &[], &waiting).len(), 1);
        assert_eq!(machine.could_hold(waiting[0].demand), Err(Impossible::Slots { wanted: 2, found: 1 }));
        assert!(matches!(machine.could_hold(waits(1, 1, 81, 0).demand), Err(Impossible::SlotMemory { .. })));
        assert!(matches!(machine.could_hold(waits(1, 0, 0, 101).demand), Err(Impossible::Memory { .. })));
    }

    proptest! {
        #[test]
        fn nothing_is_given_twice_and_nothing_beyond_what_there_is(
            memories in proptest::collection::vec(1..100_u64, 0..8),
            memory in 0..1000_u64,
            demands in proptest::collection::vec((0..5_u32, 0..100_u64, 0..400_u64, any::<bool>()), 0..20),
        ) {
            let machine = machine(&memories, memory);
            let waiting: Vec<Waiting<usize>> = demands.iter().enumerate().map(|(id, &(gpus, gpu_memory, memory, is_overdue))| {
                Waiting { id, demand: Demand { gpus, gpu_memory, memory }, is_overdue }
            }).collect();
            let first = place(&machine, &[], &waiting);
            let running: Vec<Placement> = first.iter().map(|(_, placement)| placement.clone()).collect();
            let started: BTreeSet<usize> = first.iter().map(|(id, _)| *id).collect();
            let rest: Vec<_> = waiting.iter().filter(|job| !started.contains(&job.id)).cloned().collect();
            let second = place(&machine, &running, &rest);
            let mut slots = BTreeSet::new();
            let mut used = 0;
            for (id, placement) in first.iter().chain(&second) {
                let demand = waiting[*id].demand;
                prop_assert_eq!(placement.slots.len(), demand.gpus as usize);
                for name in &placement.slots {
                    prop_assert!(slots.insert(name.clone()));
                    let slot = machine.slots.iter().find(|slot| slot.name == *name).unwrap();
                    prop_assert!(slot.memory >= demand.gpu_memory);
                }
                used += placement.memory;
            }
            prop_assert!(used <= memory);
            prop_assert!(first.len() + second.len() <= machine.jobs);
        }
    }
}
