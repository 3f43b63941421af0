//! Which examples are kept, and into which part they go.

use super::{gather::Gathered, intake::Intake};
use crate::{
    Error,
    duplicates::{Buckets, Near, Placing, Sets, place, remove},
    format::Format,
    split::{Ratios, Split},
};

/// What was decided.
pub(crate) struct Compared {
    /// Where each example goes; none for one that is left out.
    pub places: Vec<Option<Split>>,
    /// Near duplicates that were left out.
    pub near_duplicates: u64,
    /// Examples that resemble some of two parts, and were left out.
    pub between: u64,
    /// Examples for which not all comparisons were made.
    pub cut: u64,
    pub ratios: Ratios,
}

pub(super) fn compare(gathered: &Gathered, intake: &Intake<'_>) -> Result<Compared, Error> {
    let options = intake.options.dedupe.bounded();
    let all: Vec<u32> = (0..).take(gathered.len()).collect();
    let failed = || Error::io("read a temporary file");
    let buckets = intake
        .sketcher
        .as_ref()
        .map(|sketcher| intake.install(|| Buckets::new(&gathered.bands, sketcher.bands(), &all, &gathered.sets)));
    let mut cut = 0;
    let kept = match &buckets {
        Some(buckets) if options.near == Near::Remove => {
            let (of, left_out) = remove(&all, buckets, &gathered.sets, options.threshold).map_err(failed())?;
            cut += left_out;
            all.iter().zip(of).filter(|(_, of)| of.is_none()).map(|(&id, _)| id).collect()
        }
        _ => all.clone(),
    };
    let ratios = intake.options.split.ratios(kept.len() as u64);
    let key = |id: u32| gathered.keys.get(id as usize).copied();
    let own = |id: u32| key(id).map_or(Split::Train, |key| ratios.split_of(&key));
    let sets: &dyn Sets = &gathered.sets;
    let placing = Placing {
        own: &own,
        near: buckets
            .as_ref()
            .filter(|_| options.near == Near::Together)
            .map(|buckets| (buckets, sets, options.threshold)),
        answers: (intake.schema.format == Format::Preference).then_some(&key),
    };
    let (splits, left_out) = place(&kept, &placing).map_err(failed())?;
    cut += left_out;
    let between = splits.iter().filter(|split| split.is_none()).count() as u64;
    let mut places = vec![None; all.len()];
    for (&id, split) in kept.iter().zip(splits) {
        if let Some(place) = places.get_mut(id as usize) {
            *place = split;
        }
    }
    Ok(Compared { places, near_duplicates: (all.len() - kept.len()) as u64, between, cut, ratios })
}
