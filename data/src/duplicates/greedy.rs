//! What is kept and where it goes, decided for one example after the other.

use super::{
    Buckets,
    sets::{Sets, alike, can_be_alike},
};
use crate::split::Split;
use gap_format::Digest;
use std::{collections::HashMap, io};

/// Candidates looked at in one bucket, and of one example in all. More than that share a band only where thousands of
/// examples are made from one template and yet differ; or on purpose.
const MAX_IN_BUCKET: usize = 256;
const MAX_CANDIDATES: usize = 2048;

const NONE: u32 = u32::MAX;

/// Examples that lie in buckets, newest first, as lists within arrays.
struct Lists {
    heads: Vec<u32>,
    next: Vec<u32>,
    owner: Vec<u32>,
}

impl Lists {
    fn new(buckets: &Buckets) -> Self {
        Self {
            heads: vec![NONE; buckets.count()],
            next: vec![NONE; buckets.entries()],
            owner: vec![NONE; buckets.entries()],
        }
    }

    fn insert(&mut self, id: u32, buckets: &Buckets) {
        for (position, bucket) in buckets.of(id) {
            let (Some(head), Some(next), Some(owner)) = (
                self.heads.get_mut(bucket as usize),
                self.next.get_mut(position as usize),
                self.owner.get_mut(position as usize),
            ) else {
                continue;
            };
            *next = std::mem::replace(head, position);
            *owner = id;
        }
    }

    /// Those that share a bucket with `id`, oldest first; and whether some were left out.
    fn candidates(&self, id: u32, buckets: &Buckets, into: &mut Vec<u32>) -> bool {
        into.clear();
        let mut cut = false;
        for (_, bucket) in buckets.of(id) {
            let mut position = self.heads.get(bucket as usize).copied().unwrap_or(NONE);
            let mut seen = 0;
            while position != NONE {
                if seen == MAX_IN_BUCKET {
                    cut = true;
                    break;
                }
                seen += 1;
                into.extend(self.owner.get(position as usize));
                position = self.next.get(position as usize).copied().unwrap_or(NONE);
            }
        }
        into.sort_unstable();
        into.dedup();
        cut |= into.len() > MAX_CANDIDATES;
        into.truncate(MAX_CANDIDATES);
        cut
    }
}

/// Compares one example with others.
struct Comparer<'a> {
    sets: &'a dyn Sets,
    threshold: f64,
    own: Vec<u32>,
    other: Vec<u32>,
}

impl<'a> Comparer<'a> {
    fn new(sets: &'a dyn Sets, threshold: f64) -> Self {
        Self { sets, threshold, own: Vec::new(), other: Vec::new() }
    }

    /// The first of `candidates` that `id` is alike.
    fn first_alike(&mut self, id: u32, candidates: &[u32]) -> io::Result<Option<u32>> {
        let len = self.sets.len(id);
        let mut loaded = false;
        for &candidate in candidates {
            if !can_be_alike(len, self.sets.len(candidate), self.threshold) {
                continue;
            }
            if !loaded {
                self.sets.read(id, &mut self.own)?;
                loaded = true;
            }
            self.sets.read(candidate, &mut self.other)?;
            if alike(&self.own, &self.other, self.threshold) {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }
}

/// For each of `wanted`, the kept one before it that it is a near duplicate of; none if it is kept. Also for how many
/// not all comparisons were made.
pub(crate) fn remove(
    wanted: &[u32],
    buckets: &Buckets,
    sets: &dyn Sets,
    threshold: f64,
) -> io::Result<(Vec<Option<u32>>, u64)> {
    let mut kept = Lists::new(buckets);
    let mut comparer = Comparer::new(sets, threshold);
    let mut candidates = Vec::new();
    let mut cut = 0;
    let mut result = Vec::with_capacity(wanted.len());
    for &id in wanted {
        let left_out = kept.candidates(id, buckets, &mut candidates);
        let of = comparer.first_alike(id, &candidates)?;
        if of.is_none() {
            cut += u64::from(left_out);
            kept.insert(id, buckets);
        }
        result.push(of);
    }
    Ok((result, cut))
}

/// What decides where examples go.
pub(crate) struct Placing<'a> {
    /// Where an example goes that resembles no other.
    pub own: &'a dyn Fn(u32) -> Split,
    /// Near duplicates that must go together, if they were kept.
    pub near: Option<(&'a Buckets, &'a dyn Sets, f64)>,
    /// What an example answers, by its digest: what answers the same goes together.
    pub answers: Option<&'a dyn Fn(u32) -> Option<Digest>>,
}

/// Where each of `wanted` goes; none for one that resembles examples of two splits and can go into neither. Also for
/// how many not all comparisons were made.
pub(crate) fn place(wanted: &[u32], placing: &Placing<'_>) -> io::Result<(Vec<Option<Split>>, u64)> {
    let mut near = placing.near.map(|(buckets, sets, threshold)| {
        (buckets, Split::ALL.map(|split| (split, Lists::new(buckets))), Comparer::new(sets, threshold))
    });
    let mut prompts: HashMap<Digest, Split> = HashMap::new();
    let mut candidates = Vec::new();
    let mut cut = 0;
    let mut result = Vec::with_capacity(wanted.len());
    for &id in wanted {
        let prompt = placing.answers.and_then(|answers| answers(id));
        let mut bound: Vec<Split> = prompt.and_then(|prompt| prompts.get(&prompt).copied()).into_iter().collect();
        if let Some((buckets, lists, comparer)) = &mut near {
            // One that resembles is enough to bind to a split: however many there are, few are compared.
            for (split, list) in lists.iter() {
                let left_out = list.candidates(id, buckets, &mut candidates);
                match comparer.first_alike(id, &candidates)? {
                    Some(_) if bound.contains(split) => {}
                    Some(_) => bound.push(*split),
                    None => cut += u64::from(left_out),
                }
            }
        }
        let split = match bound.as_slice() {
            [] => Some((placing.own)(id)),
            [one] => Some(*one),
            _ => None,
        };
        if let Some(split) = split {
            if let Some(prompt) = prompt {
                prompts.insert(prompt, split);
            }
            if let Some((buckets, lists, _)) = &mut near {
                lists.iter_mut().filter(|(of, _)| *of == split).for_each(|(_, list)| list.insert(id, buckets));
            }
        }
        result.push(split);
    }
    Ok((result, cut))
}
