//! From the probability of speech in each window to stretches of speech.
//!
//! Speech begins where the probability reaches [`THRESHOLD`] and ends where it stays below
//! [`EXIT_THRESHOLD`], a little lower, for [`SHORTEST_SILENCE_MS`]; a stretch of no more than
//! [`SHORTEST_SPEECH_MS`] is dropped, and what is left is widened by [`MARGIN_MS`] to each side.
//!
//! Source: `get_speech_timestamps` of silero-vad 6.2.3 with its default settings.

/// At or above this probability, a window is speech.
const THRESHOLD: f32 = 0.5;
/// Below this probability, a window within speech is silence.
const EXIT_THRESHOLD: f32 = 0.35;
const SHORTEST_SPEECH_MS: usize = 250;
const SHORTEST_SILENCE_MS: usize = 100;
const MARGIN_MS: usize = 30;

/// A stretch of speech: its first sample, and the first one after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The first sample.
    pub start: usize,
    /// One past the last sample.
    pub end: usize,
}

/// The speech in `length` samples at `rate`, of which each window of `window` samples has one of
/// `probabilities`.
pub fn segments(probabilities: &[f32], window: usize, rate: usize, length: usize) -> Vec<Segment> {
    widen(
        &speech(probabilities, window, rate, length),
        rate * MARGIN_MS / 1000,
        length,
    )
}

fn speech(probabilities: &[f32], window: usize, rate: usize, length: usize) -> Vec<Segment> {
    let long_enough = |start: usize, end: usize| end - start > rate * SHORTEST_SPEECH_MS / 1000;
    let mut found = Vec::new();
    let mut speech_since = None;
    let mut silence_since = None;
    for (number, probability) in probabilities.iter().enumerate() {
        let here = number * window;
        match speech_since {
            _ if *probability >= THRESHOLD => {
                speech_since.get_or_insert(here);
                silence_since = None;
            }
            Some(start) if *probability < EXIT_THRESHOLD => {
                let end = *silence_since.get_or_insert(here);
                if here - end >= rate * SHORTEST_SILENCE_MS / 1000 {
                    found.extend(long_enough(start, end).then_some(Segment { start, end }));
                    (speech_since, silence_since) = (None, None);
                }
            }
            _ => {}
        }
    }
    let last = speech_since.map(|start| Segment { start, end: length });
    found.extend(last.filter(|last| long_enough(last.start, last.end)));
    found
}

/// Gives each segment a margin to both sides; neighbours that are too near meet half way.
fn widen(segments: &[Segment], margin: usize, length: usize) -> Vec<Segment> {
    let between = |pair: &[Segment]| match pair {
        [this, next] => margin.min((next.start - this.end) / 2),
        _ => margin,
    };
    let inner = || segments.windows(2).map(between);
    let before = std::iter::once(margin).chain(inner());
    let after = inner().chain([margin]);
    let widened = segments.iter().zip(before).zip(after);
    widened
        .map(|((segment, before), after)| Segment {
            start: segment.start.saturating_sub(before),
            end: length.min(segment.end + after),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments at 16 kHz of windows given as (how many, probability).
    fn of(windows: &[(usize, f32)]) -> Vec<(usize, usize)> {
        let probabilities: Vec<f32> = windows
            .iter()
            .flat_map(|(count, value)| vec![*value; *count])
            .collect();
        segments(&probabilities, 512, 16_000, probabilities.len() * 512)
            .into_iter()
            .map(|segment| (segment.start, segment.end))
            .collect()
    }

    #[test]
    fn speech_is_found_with_a_margin() {
        assert_eq!(
            of(&[(10, 0.1), (20, 0.9), (10, 0.1)]),
            [(5120 - 480, 15_360 + 480)]
        );
    }

    #[test]
    fn a_short_burst_is_dropped_and_a_short_pause_is_bridged() {
        assert_eq!(of(&[(10, 0.1), (7, 0.9), (10, 0.1)]), []);
        assert_eq!(
            of(&[(10, 0.9), (4, 0.1), (10, 0.9), (10, 0.1)]),
            [(0, 24 * 512 + 480)]
        );
    }

    #[test]
    fn doubt_neither_begins_nor_ends_speech() {
        assert_eq!(of(&[(30, 0.4)]), []);
        assert_eq!(
            of(&[(10, 0.5), (30, 0.36), (5, 0.1)]),
            [(0, 40 * 512 + 480)]
        );
    }

    #[test]
    fn speech_at_the_end_runs_to_the_end() {
        assert_eq!(of(&[(10, 0.1), (10, 0.9)]), [(5120 - 480, 20 * 512)]);
    }

    #[test]
    fn neighbours_that_are_too_near_meet_half_way() {
        let near = [
            Segment {
                start: 1000,
                end: 5000,
            },
            Segment {
                start: 5501,
                end: 9000,
            },
        ];
        let widened = widen(&near, 480, 9100);
        assert_eq!(
            widened,
            [
                Segment {
                    start: 520,
                    end: 5250
                },
                Segment {
                    start: 5251,
                    end: 9100
                }
            ]
        );
    }

    #[derive(serde::Deserialize)]
    struct Walk {
        rate: usize,
        window: usize,
        length: usize,
        probabilities: Vec<f32>,
        segments: Vec<(usize, usize)>,
    }

    #[test]
    fn made_up_probabilities_give_what_another_implementation_finds() {
        let walks: Vec<Walk> =
            serde_json::from_str(include_str!("../testdata/walks.json")).unwrap();
        assert!(walks.iter().filter(|walk| walk.segments.len() > 1).count() > 10);
        for walk in walks {
            let found = segments(&walk.probabilities, walk.window, walk.rate, walk.length);
            let found: Vec<_> = found.iter().map(|found| (found.start, found.end)).collect();
            assert_eq!(found, walk.segments);
        }
    }

    #[test]
    fn no_windows_have_no_speech() {
        assert_eq!(of(&[]), []);
    }
}
