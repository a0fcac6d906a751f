//! Medians, spreads and taking turns.

use serde::Serialize;

/// A measured value: the median of its rounds and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The median, in the unit of what was measured.
    pub median: f64,
    /// Third quartile less the first, over the median.
    pub spread: f64,
}

impl Figure {
    /// Of the values of all rounds, in any order.
    ///
    /// # Panics
    /// Without a value, or with one that is no number: a round that went wrong is
    /// no round.
    pub fn of(values: &[f64]) -> Figure {
        assert!(!values.is_empty(), "a figure of nothing");
        let finite = values.iter().all(|value| value.is_finite());
        assert!(finite, "a round went wrong: {values:?}");
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = quantile(&sorted, 0.5);
        let apart = quantile(&sorted, 0.75) - quantile(&sorted, 0.25);
        Figure {
            median,
            spread: if median == 0.0 { 0.0 } else { apart / median },
        }
    }

    /// Of one series over another, round by round: what hits a round hits both.
    pub fn ratio(ours: &[f64], theirs: &[f64]) -> Figure {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        Figure::of(&ratios)
    }

    /// Of one series less another, round by round: what one thing adds to another.
    pub fn above(ours: &[f64], baseline: &[f64]) -> Figure {
        let more: Vec<f64> = ours.iter().zip(baseline).map(|(a, b)| a - b).collect();
        Figure::of(&more)
    }
}

impl From<Figure> for serde_json::Value {
    /// `{"median": …, "spread": …}`, to four places.
    fn from(figure: Figure) -> Self {
        serde_json::json!({ "median": rounded(figure.median), "spread": rounded(figure.spread) })
    }
}

/// A number as it is kept: no more places than it means.
pub fn rounded(value: f64) -> f64 {
    let scale = if value.abs() < 100.0 { 1e4 } else { 1e1 };
    (value * scale).round() / scale
}

/// Between the neighbours of a sorted series, linearly.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let place = at * (sorted.len() - 1) as f64;
    let (below, part) = (place as usize, place.fract());
    let next = sorted.get(below + 1).unwrap_or(&sorted[below]);
    sorted[below] + (next - sorted[below]) * part
}

/// The geometric mean: the mean for ratios. 1 of none.
pub fn geometric_mean(ratios: &[f64]) -> f64 {
    let logs: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (logs / ratios.len().max(1) as f64).exp()
}

/// Lets measurements take turns: in every round each has one, each round begins
/// with another one. A turn returns its value; they come back per measurement,
/// in the order of the rounds.
pub fn alternate(rounds: usize, turns: &mut [&mut dyn FnMut() -> f64]) -> Vec<Vec<f64>> {
    let mut values = vec![Vec::with_capacity(rounds); turns.len()];
    for round in 0..rounds {
        for i in 0..turns.len() {
            let who = (round + i) % turns.len();
            values[who].push(turns[who]());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_that_of_the_middle_half() {
        let figure = Figure::of(&[4.0, 1.0, 3.0, 2.0, 1000.0]);
        assert_eq!((figure.median, figure.spread), (3.0, 2.0 / 3.0));
        assert_eq!(
            Figure::of(&[7.0]),
            Figure {
                median: 7.0,
                spread: 0.0
            }
        );
    }

    #[test]
    #[should_panic(expected = "a round went wrong")]
    fn a_round_without_a_value_is_not_left_out_in_silence() {
        Figure::of(&[1.0, f64::NAN, 1.0]);
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        // The second round was slow for both.
        let figure = Figure::ratio(&[1.0, 100.0, 1.0], &[2.0, 200.0, 2.0]);
        assert_eq!(
            figure,
            Figure {
                median: 0.5,
                spread: 0.0
            }
        );
    }

    #[test]
    fn the_geometric_mean_of_a_ratio_and_its_inverse_is_one() {
        assert!((geometric_mean(&[4.0, 0.25]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn everyone_has_a_turn_in_every_round_and_begins_in_turn() {
        let order = std::cell::RefCell::new(String::new());
        let turn = |name: char| {
            let order = &order;
            move || {
                order.borrow_mut().push(name);
                1.0
            }
        };
        let values = alternate(3, &mut [&mut turn('a'), &mut turn('b')]);
        assert_eq!(values, [[1.0; 3], [1.0; 3]]);
        assert_eq!(*order.borrow(), "abbaab");
    }
}
