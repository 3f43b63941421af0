//! Plots as SVG.

use std::fmt::Write as _;

const LABELS: f64 = 190.0;
const WIDTH: f64 = 420.0;
const VALUES: f64 = 80.0;
const ROW: f64 = 26.0;

/// A row of a plot; the label is HTML already.
pub struct Row {
    pub label: String,
    pub value: f64,
    pub interval: Option<(f64, f64)>,
}

/// Values with their intervals, one below the other on one axis. `around_zero` draws the line that intervals of no
/// difference cross.
pub fn intervals(rows: &[Row], around_zero: bool) -> String {
    let ends = rows.iter().flat_map(|row| {
        let (low, high) = row.interval.unwrap_or((row.value, row.value));
        [low, high, row.value]
    });
    let ends = ends.chain([0.0]).filter(|end| end.is_finite());
    let (low, high) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), end| (low.min(end), high.max(end)));
    let span = if high > low { high - low } else { 1.0 };
    let at = |value: f64| LABELS + 10.0 + (value - low) / span * (WIDTH - 20.0);
    #[allow(clippy::cast_precision_loss, reason = "a handful of rows")]
    let height = rows.len() as f64 * ROW + 24.0;
    let width = LABELS + WIDTH + VALUES;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">"
    );
    if around_zero {
        let (zero, bottom) = (at(0.0), height - 20.0);
        let _ = write!(
            svg,
            "<line x1=\"{zero:.1}\" y1=\"0\" x2=\"{zero:.1}\" y2=\"{bottom:.1}\" stroke=\"#999\" stroke-dasharray=\"3\"/>"
        );
    }
    let mut middle = ROW / 2.0;
    for row in rows {
        let baseline = middle + 4.0;
        let _ =
            write!(svg, "<text x=\"{:.0}\" y=\"{baseline:.1}\" text-anchor=\"end\">{}</text>", LABELS - 4.0, row.label);
        if let Some((low, high)) = row.interval {
            let (left, right) = (at(low), at(high));
            let _ = write!(
                svg,
                "<path d=\"M{left:.1} {middle:.1}H{right:.1}M{left:.1} {0:.1}v8M{right:.1} {0:.1}v8\" stroke=\"#36c\" stroke-width=\"2\" fill=\"none\"/>",
                middle - 4.0
            );
        }
        let _ = write!(svg, "<circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"4.5\" fill=\"#36c\"/>", at(row.value));
        let _ = write!(svg, "<text x=\"{:.0}\" y=\"{baseline:.1}\">{:.4}</text>", LABELS + WIDTH + 6.0, row.value);
        middle += ROW;
    }
    let (left, right, axis) = (at(low), at(low + span), height - 18.0);
    let _ = write!(svg, "<path d=\"M{left:.1} {axis:.1}H{right:.1}\" stroke=\"#222\"/>");
    for (end, place) in [(low, left), (low + span, right)] {
        let _ = write!(svg, "<text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{end:.3}</text>", height - 4.0);
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_drawn_even_where_all_is_zero() {
        let row = |value| Row { label: "x".to_owned(), value, interval: None };
        let svg = intervals(&[row(0.0), row(0.0)], true);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
