//! Shingles of a text, its MinHash signature, and the bands of that (Broder 1997; Leskovec et al., *Mining of Massive
//! Datasets*, 3.3 and 3.4).

use super::{
    Dedupe,
    words::{mix, words},
};

/// How sure a pair at the threshold must be to share a band.
const SURE: f64 = 0.98;

/// Words that most examples do not exceed by much.
const USUAL: usize = 64;

/// What is kept of a text for comparing it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sketch {
    bands: Vec<u32>,
    shingles: Vec<u32>,
}

impl Sketch {
    /// A hash for each band of the signature.
    pub fn bands(&self) -> &[u32] {
        &self.bands
    }

    /// The hashes of the shingles, sorted, each once. Empty for a text without words, which resembles nothing.
    pub fn shingles(&self) -> &[u32] {
        &self.shingles
    }
}

/// Makes sketches. The functions that it uses are fixed: sketches of any machine and time agree.
#[derive(Debug, Clone)]
pub struct Sketcher {
    shingle: usize,
    rows: usize,
    multipliers: Vec<u32>,
    offsets: Vec<u32>,
}

impl Sketcher {
    /// Chooses bands as long as they can be while a pair at the threshold still shares one with 98 % probability: long
    /// bands bring few candidates in vain.
    pub fn new(options: &Dedupe) -> Self {
        let options = options.bounded();
        let sure = |rows: usize| {
            let bands = options.permutations / rows;
            1.0 - (1.0 - options.threshold.powi(rows as i32)).powi(bands as i32) >= SURE
        };
        let rows = (1..=options.permutations).rev().find(|&rows| sure(rows)).unwrap_or(1);
        let used = options.permutations / rows * rows;
        let random =
            |salt: u64, index: usize| mix(salt.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        Self {
            shingle: options.shingle,
            rows,
            // Odd, so that multiplication permutes.
            multipliers: (0..used).map(|index| (random(1, index) >> 32) as u32 | 1).collect(),
            offsets: (0..used).map(|index| (random(2, index) >> 32) as u32).collect(),
        }
    }

    /// How many bands a sketch has.
    pub fn bands(&self) -> usize {
        self.multipliers.len() / self.rows
    }

    /// The sketch of some texts. Shingles do not reach from one into the next, and those of texts with different
    /// numbers differ.
    pub fn sketch<'a>(&self, texts: impl IntoIterator<Item = (u8, &'a str)>) -> Sketch {
        let mut shingles = Vec::with_capacity(USUAL);
        let mut hashes = Vec::with_capacity(USUAL);
        for (salt, text) in texts {
            hashes.clear();
            words(text, &mut |word| hashes.push(word));
            let salt = u64::from(salt);
            if hashes.len() < self.shingle && !hashes.is_empty() {
                shingles.push(shingle(salt, &hashes));
            }
            shingles.extend(hashes.windows(self.shingle).map(|window| shingle(salt, window)));
        }
        shingles.sort_unstable();
        shingles.dedup();
        let bands = self.signature(&shingles).chunks_exact(self.rows).enumerate().map(band).collect();
        Sketch { bands, shingles }
    }

    fn signature(&self, shingles: &[u32]) -> Vec<u32> {
        let mut least = vec![u32::MAX; self.multipliers.len()];
        for &shingle in shingles {
            // The shape that compilers turn into vector instructions.
            for ((least, &multiplier), &offset) in least.iter_mut().zip(&self.multipliers).zip(&self.offsets) {
                *least = (*least).min(shingle.wrapping_mul(multiplier).wrapping_add(offset));
            }
        }
        least
    }
}

fn shingle(salt: u64, words: &[u64]) -> u32 {
    let folded =
        words.iter().fold(salt, |hash, word| (hash.rotate_left(23) ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93));
    (mix(folded) >> 32) as u32
}

fn band((index, least): (usize, &[u32])) -> u32 {
    let folded = least.iter().fold(index as u64, |hash, &value| mix(hash ^ u64::from(value)));
    (folded >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(range: std::ops::Range<u32>) -> String {
        range.map(|n| format!("w{n} ")).collect()
    }

    #[test]
    fn bands_follow_from_threshold_and_permutations() {
        let shape = |threshold, permutations| {
            let sketcher = Sketcher::new(&Dedupe { threshold, permutations, ..Dedupe::default() });
            (sketcher.bands(), sketcher.rows)
        };
        assert_eq!(shape(0.8, 128), (18, 7));
        assert_eq!(shape(0.5, 128), (42, 3));
        assert_eq!(shape(1.0, 128), (1, 128));
        assert_eq!(shape(f64::NAN, 128), (18, 7));
        assert_eq!(shape(0.5, 0), (8, 2).max(shape(0.5, 16)));
    }

    #[test]
    fn equal_minima_estimate_the_similarity() {
        let sketcher = Sketcher::new(&Dedupe { permutations: 1024, shingle: 1, ..Dedupe::default() });
        // 300 words of 400 are shared.
        let (one, two) = (numbered(0..350), numbered(50..400));
        let signature = |text: &str| sketcher.signature(&sketcher.sketch([(0, text)]).shingles);
        let (one, two) = (signature(&one), signature(&two));
        let equal = one.iter().zip(&two).filter(|(a, b)| a == b).count();
        let estimate = equal as f64 / one.len() as f64;
        assert!((estimate - 0.75).abs() < 0.05, "{estimate}");
    }

    #[test]
    fn sides_and_borders_of_texts_count() {
        let sketcher = Sketcher::new(&Dedupe::default());
        let sketch = |texts: &[(u8, &'static str)]| sketcher.sketch(texts.iter().copied());
        assert_ne!(sketch(&[(1, "a b c d"), (2, "e f g h")]), sketch(&[(2, "a b c d"), (1, "e f g h")]));
        assert_ne!(sketch(&[(0, "a b c d")]), sketch(&[(0, "a b"), (0, "c d")]));
        assert!(sketch(&[(0, "?!")]).shingles.is_empty());
        assert_eq!(sketch(&[(0, "one")]).shingles.len(), 1);
    }
}
