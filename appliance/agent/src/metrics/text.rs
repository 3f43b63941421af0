//! The format: families with help and type, then their samples.

use std::fmt::{Display, Write};

/// Media type of the format.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rises and falls.
    Gauge,
    /// Only rises.
    Counter,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// A page of metrics.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// A family and its samples, each with its labels. One without samples is left out. `name`, `help` and the names of
    /// labels are the program's own.
    pub fn family<V: Display>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'static str, String)>, V)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }

    /// A family of one sample without labels.
    pub fn one(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help, [(Vec::new(), value)]);
    }

    /// The whole page.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// A label's value: backslash, quotation mark and line feed are escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_break_out_of_their_labels() {
        let mut page = Page::default();
        page.family("x", Kind::Gauge, "Help.", [(vec![("a", "q\"\\\n".to_owned()), ("b", String::new())], 1.5)]);
        page.family("y", Kind::Counter, "None.", std::iter::empty::<(Vec<(&'static str, String)>, u64)>());
        page.one("z", Kind::Counter, "One.", 7);
        let expected = "# HELP x Help.\n# TYPE x gauge\nx{a=\"q\\\"\\\\\\n\",b=\"\"} 1.5\n\
                        # HELP z One.\n# TYPE z counter\nz 7\n";
        assert_eq!(page.into_text(), expected);
    }
}
