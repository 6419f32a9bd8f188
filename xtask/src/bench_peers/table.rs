//! Ratios with their spread, as a table.

use std::fmt::Write as _;

/// Times of pairs that ran one after the other.
#[derive(Default)]
pub(super) struct Ratios {
    times: Vec<[f64; 2]>,
    /// The most memory of either side, in KiB.
    pub(super) memory: Option<[f64; 2]>,
}

impl Ratios {
    /// Adds a pair of times in milliseconds.
    pub(super) fn push(&mut self, pair: [f64; 2]) {
        self.times.push(pair);
    }

    fn sorted(&self, value: impl Fn(&[f64; 2]) -> f64) -> Vec<f64> {
        let mut values: Vec<f64> = self.times.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values
    }
}

/// One work beside one peer.
pub(super) struct Line {
    work: String,
    peer: String,
    ratios: Ratios,
}

impl Line {
    pub(super) fn new(work: &str, batch: usize, pos: usize, peer: &str, ratios: Ratios) -> Self {
        Self { work: format!("{work}, {batch} × {pos}"), peer: peer.to_owned(), ratios }
    }
}

/// The value at a fraction of the way through sorted values.
fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * fraction).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// The table, for `docs/performance.md`.
pub(super) fn markdown(shape: &str, lines: &[Line]) -> String {
    let mut text = format!("\n{shape}, f32\n\n");
    text.push_str(
        "| Work | Beside | Ours, ms | Theirs, ms | Ratio | Quartiles | Peak memory, ours : theirs |\n",
    );
    text.push_str("|---|---|---|---|---|---|---|\n");
    for Line { work, peer, ratios } in lines {
        let (ours, theirs) = (ratios.sorted(|pair| pair[0]), ratios.sorted(|pair| pair[1]));
        let ratio = ratios.sorted(|pair| pair[0] / pair[1]);
        let memory = match ratios.memory {
            None => String::new(),
            Some([ours, theirs]) => {
                let mebibytes = |kib: f64| kib / 1024.0;
                format!("{:.0} : {:.0} MiB", mebibytes(ours), mebibytes(theirs))
            }
        };
        let half = [&ours, &theirs, &ratio].map(|values| quantile(values, 0.5));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {work} | {peer} | {:.1} | {:.1} | {:.2} | {:.2} to {:.2} | {memory} |",
            half[0],
            half[1],
            half[2],
            quantile(&ratio, 0.25),
            quantile(&ratio, 0.75),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_neighbors() {
        let mut ratios = Ratios::default();
        for pair in [[1.0, 2.0], [10.0, 10.0], [3.0, 4.0]] {
            ratios.push(pair);
        }
        let text = markdown("tiny", &[Line::new("logits", 1, 16, "a peer", ratios)]);
        assert!(text.contains("| logits, 1 × 16 | a peer | 3.0 | 4.0 | 0.75 | 0.75 to 1.00 |"), "{text}");
    }
}
