//! Finds near duplicates among the lines of a file and prints how many there are: what `make bench` measures.
//!
//! `near_duplicates FILE [THRESHOLD] [PERMUTATIONS]`

use gap_data::duplicates::{Dedupe, near_duplicates};
use std::{env, error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let file = arguments.next().ok_or("usage: near_duplicates FILE [THRESHOLD] [PERMUTATIONS]")?;
    let mut options = Dedupe::default();
    if let Some(threshold) = arguments.next() {
        options.threshold = threshold.parse()?;
    }
    if let Some(permutations) = arguments.next() {
        options.permutations = permutations.parse()?;
    }
    let text = fs::read_to_string(file)?;
    let lines: Vec<&str> = text.lines().collect();
    let (of, left_out) = near_duplicates(&lines, &options)?;
    println!("{} of {} ({left_out} not fully compared)", of.iter().flatten().count(), lines.len());
    Ok(())
}
