//! What may start now, and on which GPUs. Pure: the machine, what runs and what waits go in, decisions come out.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

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
    /// Whether it has waited so long for room that nothing behind it may take what it needs any more.
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

/// What a job that runs holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// What it was given.
    pub placement: Placement,
    /// Whether it does not end by itself, so that nothing waits for its end.
    pub is_endless: bool,
}

/// What is decided about jobs that wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<I> {
    /// What starts, and where.
    pub starts: Vec<(I, Placement)>,
    /// What does not, and what it waits for.
    pub waits: Vec<(I, Wait)>,
}

/// What a job waits for, as the end of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// What is lacking.
    pub lack: Lack,
    /// Whether it stays so until somebody cancels what does not end by itself.
    pub is_endless: bool,
}

/// What is lacking for a job to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// More than the machine has, for instance since a GPU failed.
    Machine(Impossible),
    /// GPUs.
    Slots {
        /// GPUs that it needs.
        wanted: u32,
        /// Memory that each must have, in bytes.
        memory: u64,
        /// GPUs with that memory that are free.
        free: usize,
    },
    /// Memory.
    Memory {
        /// Bytes that it needs.
        wanted: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// As many jobs run as may.
    Jobs(usize),
    /// What it needs is kept for one that has waited longer.
    Turn,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes / 1_048_576;
        match &self.lack {
            Lack::Machine(impossible) => write!(f, "a larger machine: {impossible}")?,
            Lack::Slots { wanted, memory: 0, free } => write!(f, "{wanted} GPUs; {free} free")?,
            Lack::Slots { wanted, memory, free } => {
                write!(f, "{wanted} GPUs with {} MiB of memory each; {free} of that size free", mib(*memory))?;
            }
            Lack::Memory { wanted, free } => write!(f, "{} MiB of memory; {} MiB free", mib(*wanted), mib(*free))?,
            Lack::Jobs(most) => write!(f, "the end of a job; {most} run, which are the most")?,
            Lack::Turn => f.write_str("its turn: what it needs is kept for a job that has waited longer")?,
        }
        if self.is_endless {
            f.write_str("; servers hold the rest until somebody cancels one")?;
        }
        Ok(())
    }
}

/// Decides what starts: each waiting job in order that fits into what is left. A later one may overtake one that does
/// not fit. Once that one is overdue, what it needs is kept for it as it becomes free, unless it would wait for the end of what
/// does not end by itself. Of those that are overdue only as many keep something as could run at the same time: the others have
/// to wait for these.
pub fn place<I: Clone>(machine: &Machine, running: &[Holding], waiting: &[Waiting<I>]) -> Decision<I> {
    let mut free = Free::of(machine, running.iter());
    // Without what is kept for those that are overdue.
    let mut left = free.clone();
    let ever = Free::of(machine, running.iter().filter(|holding| holding.is_endless));
    // The same without what those have that something is kept for.
    let mut beside = ever.clone();
    let (mut starts, mut waits) = (Vec::new(), Vec::new());
    for job in waiting {
        if let Ok(placement) = left.choose(job.demand) {
            left.give(&placement);
            free.give(&placement);
            starts.push((job.id.clone(), placement));
            continue;
        }
        let is_endless = ever.choose(job.demand).is_err();
        let wait = match machine.could_hold(job.demand) {
            Err(impossible) => Wait { lack: Lack::Machine(impossible), is_endless: false },
            Ok(()) => Wait { lack: free.choose(job.demand).err().unwrap_or(Lack::Turn), is_endless },
        };
        if job.is_overdue
            && let Ok(placement) = beside.choose(job.demand)
        {
            beside.give(&placement);
            left.keep(job.demand);
        }
        waits.push((job.id.clone(), wait));
    }
    Decision { starts, waits }
}

/// What is not given to any job.
#[derive(Clone)]
struct Free<'a> {
    slots: Vec<&'a Slot>,
    memory: u64,
    jobs: usize,
    most: usize,
}

impl<'a> Free<'a> {
    fn of<'b>(machine: &'a Machine, running: impl Iterator<Item = &'b Holding>) -> Self {
        let mut slots: Vec<&Slot> = machine.slots.iter().collect();
        // The smallest that do come first, so that the large ones stay for who needs them.
        slots.sort_by_key(|slot| slot.memory);
        let mut free = Self { slots, memory: machine.memory, jobs: machine.jobs, most: machine.jobs };
        running.for_each(|holding| free.give(&holding.placement));
        free
    }

    /// What a job would be given.
    fn choose(&self, demand: Demand) -> Result<Placement, Lack> {
        let Demand { gpus: wanted, gpu_memory, memory } = demand;
        let fit = self.fit(demand);
        if u32::try_from(fit.len()).unwrap_or(u32::MAX) < wanted {
            let free = self.slots.iter().filter(|slot| slot.memory >= gpu_memory).count();
            return Err(Lack::Slots { wanted, memory: gpu_memory, free });
        }
        if memory > self.memory {
            return Err(Lack::Memory { wanted: memory, free: self.memory });
        }
        if self.jobs == 0 {
            return Err(Lack::Jobs(self.most));
        }
        Ok(Placement { slots: fit, memory })
    }

    /// As many GPUs as a job needs, or those of them that there are.
    fn fit(&self, demand: Demand) -> Vec<String> {
        let wanted = usize::try_from(demand.gpus).unwrap_or(usize::MAX);
        let fit = self.slots.iter().filter(|slot| slot.memory >= demand.gpu_memory).take(wanted);
        fit.map(|slot| slot.name.clone()).collect()
    }

    /// Keeps for a job what there is of what it needs.
    fn keep(&mut self, demand: Demand) {
        self.give(&Placement { slots: self.fit(demand), memory: demand.memory });
    }

    fn give(&mut self, placement: &Placement) {
        self.slots.retain(|slot| !placement.slots.contains(&slot.name));
        self.memory = self.memory.saturating_sub(placement.memory);
        self.jobs = self.jobs.saturating_sub(1);
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

    fn started(decision: &Decision<u32>) -> Vec<u32> {
        decision.starts.iter().map(|(id, _)| *id).collect()
    }

    fn runs(slots: &[&str], memory: u64, is_endless: bool) -> Holding {
        Holding { placement: Placement { slots: slots.iter().map(|&slot| slot.into()).collect(), memory }, is_endless }
    }

    fn overdue(job: Waiting<u32>) -> Waiting<u32> {
        Waiting { is_overdue: true, ..job }
    }

    #[test]
    fn a_job_gets_the_smallest_gpu_that_is_large_enough() {
        let machine = machine(&[80, 24, 40], 100);
        let starts = place(&machine, &[], &[waits(1, 1, 30, 0), waits(2, 1, 10, 0), waits(3, 1, 60, 0)]);
        let names: Vec<&str> = starts.starts.iter().map(|(_, placement)| placement.slots[0].as_str()).collect();
        assert_eq!(names, ["gpu2", "gpu1", "gpu0"]);
    }

    #[test]
    fn what_fits_overtakes_what_does_not_until_that_is_overdue() {
        let machine = machine(&[80, 80], 100);
        let running = [runs(&["gpu0"], 0, false)];
        let mut waiting = [waits(1, 2, 0, 0), waits(2, 1, 0, 0)];
        let decided = place(&machine, &running, &waiting);
        assert_eq!(started(&decided), [2]);
        assert_eq!(decided.waits[0].1.to_string(), "2 GPUs; 1 free");
        waiting[0].is_overdue = true;
        let decided = place(&machine, &running, &waiting);
        assert_eq!(started(&decided), [0_u32; 0]);
        assert_eq!(decided.waits[1].1.lack, Lack::Turn, "{}", decided.waits[1].1);
    }

    #[test]
    fn what_is_overdue_holds_up_nobody_who_needs_none_of_what_it_lacks() {
        let machine = machine(&[80, 80], 100);
        let running = [runs(&["gpu0"], 10, false)];
        let waiting = [overdue(waits(1, 2, 0, 40)), waits(2, 0, 0, 50), waits(3, 0, 0, 10)];
        assert_eq!(started(&place(&machine, &running, &waiting)), [2], "40 of 90 units of memory are kept");
        let waiting = [overdue(waits(1, 1, 0, 95)), waits(2, 0, 0, 1), waits(3, 0, 0, 0)];
        assert_eq!(started(&place(&machine, &running, &waiting)), [3], "memory is what lacks");
    }

    #[test]
    fn nothing_is_kept_for_those_that_are_overdue_and_can_only_run_after_another_one() {
        let machine = machine(&[80], 64);
        let training = |id| overdue(waits(id, 1, 0, 16));
        let waiting = [training(1), training(2), training(3), training(4), waits(5, 0, 0, 30), waits(6, 0, 0, 10)];
        let decided = place(&machine, &[runs(&["gpu0"], 16, false)], &waiting);
        assert_eq!(started(&decided), [5], "16 of 48 units of memory are kept");
        let lack = |id| decided.waits.iter().find(|(other, _)| *other == id).map(|(_, wait)| wait.lack.clone());
        assert_eq!(lack(4), Some(Lack::Slots { wanted: 1, memory: 0, free: 0 }));
        assert_eq!(lack(6), Some(Lack::Turn));
    }

    #[test]
    fn what_waits_for_the_end_of_a_server_holds_nobody_up_and_says_so() {
        let machine = machine(&[80, 80], 100 << 20);
        let server = runs(&["gpu0"], 20 << 20, true);
        for job in [overdue(waits(1, 0, 0, 90 << 20)), overdue(waits(1, 2, 0, 0))] {
            let decided = place(&machine, std::slice::from_ref(&server), &[job, waits(2, 1, 0, 60 << 20)]);
            assert_eq!(started(&decided), [2]);
            assert!(decided.waits[0].1.to_string().ends_with("servers hold the rest until somebody cancels one"));
        }
        let decided = place(&machine, &[server], &[waits(1, 0, 0, 90 << 20)]);
        assert!(decided.waits[0].1.to_string().starts_with("90 MiB of memory; 80 MiB free"), "{decided:?}");
    }

    #[test]
    fn what_can_never_run_holds_nobody_up() {
        let machine = machine(&[80], 100);
        let waiting = [overdue(waits(1, 2, 0, 0)), waits(2, 1, 0, 0)];
        let decided = place(&machine, &[], &waiting);
        assert_eq!(started(&decided), [2]);
        let why = "a larger machine: it needs 2 GPUs, and this machine has 1";
        assert_eq!(decided.waits[0].1.to_string(), why);
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
            let decided = place(&machine, &[], &waiting);
            prop_assert_eq!(decided.starts.len() + decided.waits.len(), waiting.len());
            let first = decided.starts;
            let holding = |(_, placement): &(usize, Placement)| Holding { placement: placement.clone(), is_endless: false };
            let running: Vec<Holding> = first.iter().map(holding).collect();
            let started: BTreeSet<usize> = first.iter().map(|(id, _)| *id).collect();
            let rest: Vec<_> = waiting.iter().filter(|job| !started.contains(&job.id)).cloned().collect();
            let second = place(&machine, &running, &rest).starts;
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
