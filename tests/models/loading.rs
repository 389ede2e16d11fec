//! What a load asks its files for.

use crate::fixture::{GPT2_A, GPT2_B, OPT_A, OPT_B};
use crate::{greedy, run};
use std::cell::RefCell;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use vitrine::checkpoint::{Awaited, BytesSource, Source};
use vitrine::{Candidate, Files, Precision, Session};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A file whose bytes come only when a load has waited for them.
struct Late {
    file: BytesSource,
    log: Rc<Log>,
}

/// The name of a file, and bytes of it.
type Part = (String, Range<u64>);

/// What a load spoke of.
#[derive(Default)]
struct Log {
    expected: RefCell<Vec<Part>>,
    waited: RefCell<Vec<Part>>,
}

impl Source for Late {
    fn name(&self) -> &str {
        self.file.name()
    }

    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> vitrine::Result<()> {
        let end = offset + buffer.len() as u64;
        let loading = !self.log.expected.borrow().is_empty();
        let has = |(file, range): &Part| *file == self.name() && range.start <= offset && end <= range.end;
        let waited = self.log.waited.borrow().iter().any(has);
        assert!(!loading || waited, "bytes {offset}..{end} are read too early");
        self.file.read_at(offset, buffer)
    }

    fn expect(&self, range: Range<u64>) {
        self.log.expected.borrow_mut().push((self.name().to_owned(), range));
    }

    fn ready(&self, range: Range<u64>) -> Awaited<'_, vitrine::Result<()>> {
        let mut asked = false;
        Box::pin(std::future::poll_fn(move |_| {
            if asked {
                self.log.waited.borrow_mut().push((self.name().to_owned(), range.clone()));
                return Poll::Ready(Ok(()));
            }
            asked = true;
            Poll::Pending
        }))
    }
}

/// Loads files whose bytes come late: the session, what was expected and what was waited for, neighbours joined.
pub(super) fn load(files: &[(&'static str, &[u8])], precision: Precision) -> (Session, [Vec<Part>; 2]) {
    let log = Rc::<Log>::default();
    let late = |&(name, bytes): &(_, &[u8])| {
        Box::new(Late { file: BytesSource::new(name, bytes.to_vec()), log: Rc::clone(&log) }) as _
    };
    let candidate = Candidate::open(Files::new(files.iter().map(late).collect())).expect("a candidate");
    candidate.plan(precision).expect("it fits");
    assert!(log.expected.borrow().is_empty(), "a plan alone loads nothing");
    let mut progress = |_, _| {};
    let mut load = pin!(candidate.load_when_ready(precision, &mut progress));
    for _ in 0..10_000 {
        if let Poll::Ready(session) = load.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            let [expected, waited] = [&log.expected, &log.waited].map(|parts| joined(&parts.borrow()));
            let said = |(file, range): &Part| {
                expected.iter().any(|(other, whole)| {
                    file == other && whole.start <= range.start && range.end <= whole.end
                })
            };
            assert!(waited.iter().all(said), "{expected:?}; waited for {waited:?}");
            return (session.expect("a session"), [expected, waited]);
        }
    }
    panic!("the load waits for nothing");
}

fn joined(parts: &[Part]) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::new();
    for (file, range) in parts {
        match joined.last_mut() {
            Some((last, whole)) if last == file && whole.end == range.start => whole.end = range.end,
            _ => joined.push((file.clone(), range.clone())),
        }
    }
    joined
}

#[test]
fn a_load_waits_for_what_it_said_that_it_would_read_in_that_order() {
    for fixture in [&GPT2_A, &GPT2_B, &OPT_A, &OPT_B] {
        for precision in Precision::ALL {
            let (mut session, [expected, waited]) = load(fixture.files, precision);
            assert!(!expected.is_empty());
            assert_eq!(expected, waited, "{} in {}", fixture.name, precision.name());
            if precision == Precision::F32 {
                let greedy_run = fixture.expected().greedy;
                let written = run(&mut session, &greedy_run.prompt, &greedy(8));
                assert_eq!(written.0, greedy_run.ids[..8], "{}", fixture.name);
            }
        }
    }
}
