//! Stop strings in a text that arrives piece by piece.

/// Holds text back while it may be the beginning of a stop string.
#[derive(Clone, Debug)]
pub(super) struct StopStrings {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopStrings {
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new(), stopped: false }
    }

    /// Adds `text`; the result is the text that may be shown now, and whether a stop string has appeared. Text
    /// after the first stop string is dropped.
    pub(super) fn push(&mut self, text: &str) -> (String, bool) {
        if self.stopped {
            return (String::new(), true);
        }
        self.held.push_str(text);
        if let Some(start) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.held.truncate(start);
            self.stopped = true;
            return (std::mem::take(&mut self.held), true);
        }
        let shown = self.held.len() - self.possible_stop_len();
        let kept = self.held.split_off(shown);
        (std::mem::replace(&mut self.held, kept), false)
    }

    /// The text still held back, once no more will come.
    pub(super) fn take_held(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes of the longest ending of the held text that begins a stop string.
    fn possible_stop_len(&self) -> usize {
        let begins_stop =
            |(start, _): &(usize, char)| self.stops.iter().any(|stop| stop.starts_with(&self.held[*start..]));
        self.held.char_indices().find(begins_stop).map_or(0, |(start, _)| self.held.len() - start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut strings = StopStrings::new(stops.iter().map(|stop| stop.to_string()).collect());
        let mut shown = Vec::new();
        for piece in pieces {
            let (text, stopped) = strings.push(piece);
            shown.push(text);
            if stopped {
                return (shown, true);
            }
        }
        shown.push(strings.take_held());
        (shown, false)
    }

    #[test]
    fn without_stop_strings_nothing_is_held() {
        assert_eq!(run(&[], &["a", "b"]), (vec!["a".into(), "b".into(), "".into()], false));
    }

    #[test]
    fn a_stop_string_across_pieces_is_never_shown() {
        assert_eq!(run(&["END"], &["to E", "N", "D of"]), (vec!["to ".into(), "".into(), "".into()], true));
    }

    #[test]
    fn text_that_only_began_a_stop_string_is_shown_once_it_cannot_become_one() {
        let (shown, stopped) = run(&["\n\n"], &["one\n", "two\n"]);
        assert_eq!((shown, stopped), (vec!["one".into(), "\ntwo".into(), "\n".into()], false));
    }

    #[test]
    fn the_earliest_of_several_stop_strings_ends_the_text() {
        assert_eq!(run(&["c", "bc"], &["abcd"]), (vec!["a".into()], true));
    }

    #[test]
    fn an_overlapping_beginning_is_found() {
        assert_eq!(run(&["aab"], &["aaa", "b"]), (vec!["a".into(), "".into()], true));
    }

    #[test]
    fn characters_of_several_bytes_are_kept_whole() {
        assert_eq!(run(&["é!"], &["caf", "é", "!"]), (vec!["caf".into(), "".into(), "".into()], true));
    }
}
