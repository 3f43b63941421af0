//! Texts at which an answer ends.

/// Watches a text for the first of some ends. Text that could be the beginning of one is held back.
#[derive(Debug)]
pub struct StopWatch {
    ends: Vec<String>,
    held: String,
}

/// What is certain after more text came.
#[derive(Debug, PartialEq, Eq)]
pub struct Watched {
    /// Text that is not part of an end.
    pub text: String,
    /// Whether an end came; nothing after it counts.
    pub stopped: bool,
}

impl StopWatch {
    /// For these ends; empty ones do not count.
    pub fn new(ends: Vec<String>) -> Self {
        Self { ends: ends.into_iter().filter(|end| !end.is_empty()).collect(), held: String::new() }
    }

    /// Takes more text.
    pub fn push(&mut self, text: &str) -> Watched {
        self.held.push_str(text);
        let first = self.ends.iter().filter_map(|end| self.held.find(end.as_str())).min();
        if let Some(at) = first {
            let mut text = std::mem::take(&mut self.held);
            text.truncate(at);
            return Watched { text, stopped: true };
        }
        let certain = self.held.len() - self.possible_beginning();
        let held = self.held.split_off(certain);
        Watched { text: std::mem::replace(&mut self.held, held), stopped: false }
    }

    /// What was held back, when no more text comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Length of the longest tail that an end begins with.
    fn possible_beginning(&self) -> usize {
        let longest = |end: &String| {
            let most = end.len().saturating_sub(1).min(self.held.len());
            (1..=most).rev().find(|length| {
                end.is_char_boundary(*length) && end.get(..*length).is_some_and(|start| self.held.ends_with(start))
            })
        };
        self.ends.iter().filter_map(longest).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(ends: &[&str], texts: &[&str]) -> (String, bool) {
        let mut watch = StopWatch::new(ends.iter().map(ToString::to_string).collect());
        let mut out = String::new();
        for text in texts {
            let Watched { text, stopped } = watch.push(text);
            out += &text;
            if stopped {
                return (out, true);
            }
        }
        (out + &watch.finish(), false)
    }

    #[test]
    fn the_first_end_counts_wherever_the_text_is_cut() {
        assert_eq!(watch(&["END", "\n\n"], &["one\n", "\ntwo END"]), ("one".to_owned(), true));
        assert_eq!(watch(&["END"], &["a E", "N", "D b"]), ("a ".to_owned(), true));
        assert_eq!(watch(&["END"], &["a E", "N", "C b"]), ("a ENC b".to_owned(), false));
        assert_eq!(watch(&["é€"], &["x é", "€ y"]), ("x ".to_owned(), true));
        assert_eq!(watch(&["aab"], &["aa", "ab"]), ("a".to_owned(), true));
        assert_eq!(watch(&[""], &["text"]), ("text".to_owned(), false));
        assert_eq!(watch(&["END"], &["so EN"]), ("so EN".to_owned(), false));
    }

    #[test]
    fn text_that_cannot_be_an_end_comes_at_once() {
        let mut watch = StopWatch::new(vec!["END".to_owned()]);
        assert_eq!(watch.push("hello"), Watched { text: "hello".to_owned(), stopped: false });
    }
}
