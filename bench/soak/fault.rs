//! Owns the kinds of faults: what they are called, and what a client may see of them. What a backend does then is in
//! `misbehaviour`, what is done to its process in `farm`.

use std::time::Duration;

use clap::ValueEnum;
use fastrand::Rng;

/// What can be wrong with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Fault {
    /// `kill -9`, and a start some time later.
    Kill,
    /// The same over and over, with hardly a pause.
    Restarts,
    /// `SIGSTOP`, and `SIGCONT` some time later.
    Stop,
    /// Every new connection is reset at once.
    ResetOnAccept,
    /// An answer breaks off in the middle of its header.
    HalfHeader,
    /// Or after it.
    AfterHeader,
    /// It is no HTTP, or not quite.
    Garbage,
    /// `Content-Length` says more than comes before the close.
    TooShort,
    /// Or less than comes: what follows looks like another answer.
    Surplus,
    /// A chunked answer ends without its last chunk.
    TruncatedChunks,
    /// A header takes long.
    SlowHeader,
    /// Connections are closed after some milliseconds without a request.
    IdleClose,
    /// The answer is 502, 503 or 504.
    Refusal,
    /// There is no answer, for as long as the fault lasts, and then a close.
    Hang,
    /// Nothing is read for as long as the fault lasts, then everything is served.
    Deaf,
}

impl Fault {
    /// Whether it may break off an answer whose header the client has.
    pub fn breaks_bodies(self) -> bool {
        matches!(
            self,
            Self::Kill
                | Self::Restarts
                | Self::Stop
                | Self::AfterHeader
                | Self::Garbage
                | Self::TooShort
                | Self::TruncatedChunks
        )
    }

    /// Whether the process is dealt with, and not told to misbehave.
    pub fn is_of_process(self) -> bool {
        matches!(self, Self::Kill | Self::Restarts | Self::Stop)
    }

    /// What it is called on the command line, in reports, and towards backends.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Kinds in random order, each once before any comes again.
pub struct Deck {
    kinds: Vec<Fault>,
    left: Vec<Fault>,
}

impl Deck {
    /// Of at least one kind.
    pub fn new(kinds: Vec<Fault>) -> Self {
        let left = Vec::new();
        Self { kinds, left }
    }

    pub fn deal(&mut self, rng: &mut Rng) -> Option<Fault> {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
            rng.shuffle(&mut self.left);
        }
        self.left.pop()
    }
}

/// A length of time in this range of milliseconds.
pub fn some_millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_dealt_before_any_comes_again() {
        let mut deck = Deck::new(Fault::value_variants().to_vec());
        let mut rng = Rng::with_seed(1);
        for _ in 0..3 {
            let mut dealt: Vec<Fault> = (0..Fault::value_variants().len())
                .filter_map(|_| deck.deal(&mut rng))
                .collect();
            dealt.sort_unstable();
            assert_eq!(dealt, Fault::value_variants());
        }
    }

    #[test]
    fn a_name_leads_back() {
        for fault in Fault::value_variants() {
            assert_eq!(Fault::from_str(&fault.name(), false), Ok(*fault));
        }
    }
}
