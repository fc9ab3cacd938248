//! Measures another build of Seaway beside this one: the same loads in pairs of runs, in
//! alternation, so that a machine whose speed drifts slows both alike. It must not know what the
//! two builds differ in.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::compare::{Effort, Figures, Scenario, once, scenarios, slug};
use crate::servers::{Peer, Programs};

/// With fewer pairs than this there is no verdict.
const PAIRS_MIN: usize = 10;
/// A build is worse if the whole confidence interval of its ratio lies above this.
const WORSE_ABOVE: f64 = 1.03;
/// Student's t for a two-sided interval of 95 %, by degrees of freedom from 1 on.
const STUDENT_T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// A figure's name, and how it is read from a run.
type Measure = (&'static str, fn(&Figures) -> f64);

/// The figures that are compared.
const MEASURES: [Measure; 2] = [
    ("CPU-s/GiB", |run| run.cpu_seconds_per_gib),
    ("peak MiB resident", |run| run.resident_max_mib),
];

/// Runs every load whose name contains `filter` on both builds, `effort.runs` pairs of each, and prints a table. An
/// error if this build is worse in any row.
pub async fn run(programs: &Programs, other: &Path, effort: &Effort, filter: &str) -> Result<()> {
    ensure!(
        effort.runs >= 2,
        "a comparison needs at least two pairs: --runs {PAIRS_MIN} or more gives verdicts"
    );
    let others = Programs {
        seaway: other.to_owned(),
        ..programs.clone()
    };
    println!("| load | figure | this | other | ratio (95 % interval) | verdict |");
    println!("|---|---|---|---|---|---|");
    let mut worse = 0;
    for scenario in scenarios(effort) {
        if !scenario.name.contains(filter) {
            continue;
        }
        let pairs = pairs(programs, &others, effort, &scenario).await?;
        for (figure, of) in MEASURES {
            let values: Vec<(f64, f64)> = pairs.iter().map(|(a, b)| (of(a), of(b))).collect();
            let ratio = Ratio::of(&values);
            let is_worse = values.len() >= PAIRS_MIN && ratio.low > WORSE_ABOVE;
            worse += usize::from(is_worse);
            println!(
                "| {} | {figure} | {:.2} | {:.2} | {:.3} ({:.3} to {:.3}) | {} |",
                scenario.name,
                median(values.iter().map(|pair| pair.0)),
                median(values.iter().map(|pair| pair.1)),
                ratio.mean,
                ratio.low,
                ratio.high,
                verdict(is_worse, values.len()),
            );
        }
    }
    ensure!(worse == 0, "this build is worse in {worse} rows");
    Ok(())
}

fn verdict(is_worse: bool, pairs: usize) -> &'static str {
    match (is_worse, pairs >= PAIRS_MIN) {
        (true, _) => "worse",
        (false, true) => "not worse",
        (false, false) => "too few pairs",
    }
}

/// Runs both builds in turn; which goes first changes from pair to pair.
async fn pairs(
    programs: &Programs,
    others: &Programs,
    effort: &Effort,
    scenario: &Scenario,
) -> Result<Vec<(Figures, Figures)>> {
    let mut pairs = Vec::new();
    for pair in 0..effort.runs {
        let run = async |programs: &Programs, which: &str| {
            let name = format!("{which}-{pair}-{}", slug(scenario.name));
            once(Peer::seaway(programs, &name, &scenario.seaway)?, scenario).await
        };
        if pair % 2 == 0 {
            let this = run(programs, "this").await?;
            pairs.push((this, run(others, "other").await?));
        } else {
            let other = run(others, "other").await?;
            pairs.push((run(programs, "this").await?, other));
        }
    }
    Ok(pairs)
}

/// The ratio of paired figures: its geometric mean, and the interval that holds the true ratio with
/// 95 % if logarithms of ratios are distributed normally.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratio {
    mean: f64,
    low: f64,
    high: f64,
}

impl Ratio {
    /// The ratio of at least two pairs of figures above zero.
    fn of(pairs: &[(f64, f64)]) -> Self {
        let logs: Vec<f64> = pairs.iter().map(|(a, b)| (a / b).ln()).collect();
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let squares: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
        let error = (squares / (count - 1.0) / count).sqrt();
        let t = STUDENT_T[(logs.len() - 2).min(STUDENT_T.len() - 1)];
        Ratio {
            mean: mean.exp(),
            low: (mean - t * error).exp(),
            high: (mean + t * error).exp(),
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_pairs_have_a_ratio_of_one_whatever_their_size() {
        let ratio = Ratio::of(&[(1.0, 1.0), (5.0, 5.0), (9.0, 9.0)]);
        assert_eq!((ratio.mean, ratio.low, ratio.high), (1.0, 1.0, 1.0));
    }

    #[test]
    fn a_difference_within_the_noise_of_the_pairs_is_not_worse() {
        let noisy: Vec<(f64, f64)> = (0..10)
            .map(|pair| (if pair % 2 == 0 { 1.5 } else { 0.8 }, 1.0))
            .collect();
        let ratio = Ratio::of(&noisy);
        assert!(ratio.mean > 1.05 && ratio.low < WORSE_ABOVE, "{ratio:?}");
    }

    #[test]
    fn a_steady_difference_is_worse() {
        let steady: Vec<(f64, f64)> = (0..10)
            .map(|pair| (1.06 + f64::from(pair) * 0.002, 1.0))
            .collect();
        let ratio = Ratio::of(&steady);
        assert!(ratio.low > WORSE_ABOVE && ratio.high < 1.1, "{ratio:?}");
    }
}
