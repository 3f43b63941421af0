use super::{Buckets, Dedupe, Placing, Sketcher, near_duplicates, place, sets::MemorySets};
use crate::split::Split;
use gap_format::Digest;
use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

fn words(numbers: impl IntoIterator<Item = u32>) -> String {
    numbers.into_iter().map(|number| format!("word{number} ")).collect()
}

fn of(texts: &[String]) -> Vec<Option<u32>> {
    near_duplicates(texts, &Dedupe::default()).unwrap().0
}

/// Similarity by the definition: sets of runs of three words.
fn similarity(one: &str, two: &str) -> f64 {
    let set = |text: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        words.windows(3).map(|window| window.join(" ")).collect::<std::collections::HashSet<_>>()
    };
    let (one, two) = (set(one), set(two));
    one.intersection(&two).count() as f64 / one.union(&two).count().max(1) as f64
}

#[test]
fn the_first_of_those_that_resemble_is_kept() {
    let base: Vec<u32> = (0..60).collect();
    let mut changed = base.clone();
    changed[30] = 1000;
    let mut other = base.clone();
    other.truncate(20);
    let texts =
        [words(base.clone()), words(5000..5060), words(changed), words(base).to_uppercase() + "!", words(other)];
    assert_eq!(of(&texts), [None, None, Some(0), Some(0), None]);
}

#[test]
fn texts_without_words_resemble_nothing() {
    assert_eq!(of(&["?!".to_owned(), "?!".to_owned(), String::new(), String::new()]), [None; 4]);
}

#[test]
fn what_is_found_is_above_the_threshold_and_nearly_nothing_is_missed() {
    // Pairs of texts, of which one to nine words of eighty differ.
    let mut texts = Vec::new();
    for pair in 0..400u32 {
        let base: Vec<u32> = (0..80).map(|word| pair * 1000 + word).collect();
        let mut changed = base.clone();
        for step in 0..1 + pair % 9 {
            changed[(step * 8 + 3) as usize] = 900_000 + pair * 10 + step;
        }
        texts.extend([words(base), words(changed)]);
    }
    let found = of(&texts);
    let (mut alike, mut missed) = (0, 0);
    for (index, pair) in texts.chunks_exact(2).enumerate() {
        let similar = similarity(&pair[0], &pair[1]) >= 0.8;
        let hit = found[index * 2 + 1];
        assert_eq!(found[index * 2], None);
        assert!(hit.is_none() || similar && hit == Some(index as u32 * 2));
        alike += u32::from(similar);
        missed += u32::from(similar && hit.is_none());
    }
    assert!(alike >= 80 && missed * 50 <= alike, "{missed} of {alike}");
}

#[test]
fn threads_do_not_change_the_result() {
    let texts: Vec<String> = (0..500u32)
        .map(|n| words((0..60).map(|word| (n / 3) * 1000 + word + 500 * u32::from(word == n % 60))))
        .collect();
    let with = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| of(&texts))
    };
    assert_eq!(with(1), with(7));
    assert!(with(1).iter().flatten().count() > 200);
}

#[test]
fn what_is_appended_changes_nothing_before_it() {
    let texts: Vec<String> = (0..300u32)
        .map(|n| words((0..20).map(|word| (n % 100) * 50 + word + (n / 100) * u32::from(word == 7))))
        .collect();
    let all = of(&texts);
    for len in [1, 100, 150, 299] {
        assert_eq!(of(&texts[..len]), all[..len]);
    }
}

/// Where texts go that are all kept; each by itself would go where its own split says.
fn placed(texts: &[String], own: &[Split], prompts: &[u8]) -> Vec<Option<Split>> {
    let options = Dedupe::default();
    let sketcher = Sketcher::new(&options);
    let mut sets = MemorySets::default();
    let mut bands = Vec::new();
    for text in texts {
        let sketch = sketcher.sketch([(0, text.as_str())]);
        bands.extend_from_slice(sketch.bands());
        sets.push(sketch.shingles());
    }
    let all: Vec<u32> = (0..texts.len() as u32).collect();
    let buckets = Buckets::new(&bands, sketcher.bands(), &all, &sets);
    let own = |id: u32| own[id as usize];
    let answers = |id: u32| prompts.get(id as usize).map(|prompt| Digest::of(&[*prompt]));
    place(&all, &Placing { own: &own, near: Some((&buckets, &sets, 0.8)), answers: Some(&answers) }).unwrap().0
}

#[test]
fn those_that_resemble_go_together_and_one_between_two_parts_is_left_out() {
    let run = |from: u32| words(from..from + 100);
    // The second resembles the first, the fourth the third; the fifth resembles both sides.
    let texts = [run(0), run(6), run(12), run(18), run(9)];
    assert!(similarity(&texts[0], &texts[2]) < 0.8 && similarity(&texts[0], &texts[4]) > 0.8);
    use Split::{Test, Train, Validation};
    let own = [Train, Test, Test, Validation, Validation];
    let only = |indices: &[usize]| {
        let texts: Vec<String> = indices.iter().map(|&index| texts[index].clone()).collect();
        let own: Vec<Split> = indices.iter().map(|&index| own[index]).collect();
        placed(&texts, &own, &[])
    };
    assert_eq!(only(&[0, 1]), [Some(Train), Some(Train)]);
    assert_eq!(only(&[0, 2, 3]), [Some(Train), Some(Test), Some(Test)]);
    assert_eq!(only(&[0, 2, 4]), [Some(Train), Some(Test), None]);
}

#[test]
fn answers_to_one_prompt_go_together() {
    use Split::{Test, Train};
    let texts = [words(0..20), words(100..120), words(200..220)];
    assert_eq!(placed(&texts, &[Test, Train, Train], &[1, 2, 1]), [Some(Test), Some(Train), Some(Test)]);
}

#[test]
fn a_crowd_that_shares_a_band_is_compared_within_bounds() {
    // All alike: one comparison each.
    let texts: Vec<String> = (0..3000).map(|_| words(0..30)).collect();
    let (found, left_out) = near_duplicates(&texts, &Dedupe::default()).unwrap();
    assert_eq!((found.iter().flatten().count(), left_out), (2999, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_two_that_were_kept_and_share_a_band_are_alike(seeds in proptest::collection::vec((0u32..6, 0u32..40), 2..25)) {
        let texts: Vec<String> = seeds.iter().map(|&(base, at)| words((0..40).map(|word| base * 20 + word + 500 * u32::from(word == at)))).collect();
        let found = of(&texts);
        for (index, of) in found.iter().enumerate() {
            if let Some(of) = of {
                prop_assert!((*of as usize) < index && found[*of as usize].is_none());
                prop_assert!(similarity(&texts[index], &texts[*of as usize]) >= 0.8);
            }
        }
    }
}
