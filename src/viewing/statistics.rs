//! How sure a difference of two profiles is.
//!
//! A sample falls on a function by chance, with the probability of the function's share of the time. Of n
//! samples k fell on it: the share is k/n, and its variance p·(1 − p)/n, where p is taken a little towards one
//! half ((k + 1)/(n + 2)), since a function that was not met may yet have run. The difference of two shares
//! has the sum of their variances. Where counts are compared as they are (`--absolute`) each has, as that of
//! a Poisson process, its own size for its variance.
//!
//! A table has many functions, and of twenty intervals of 95 % one misses by chance. So what is called
//! *significant* must hold for all functions together: the level is divided by their number (Bonferroni).
//! What is stated as ± is the interval of 95 % of the one row.

/// Half an interval of 95 %, in standard deviations.
const ONE: f64 = 1.96;

/// Samples that fell on something, of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Hits {
    pub(super) hits: f64,
    pub(super) all: f64,
}

impl Hits {
    fn variance(self) -> f64 {
        let p = (self.hits + 1.0) / (self.all + 2.0);
        p * (1.0 - p) / self.all.max(1.0)
    }
}

/// The standard deviation of the difference of two shares.
pub(super) fn of_shares(before: Hits, after: Hits) -> f64 {
    (before.variance() + after.variance()).sqrt()
}

/// The standard deviation of the difference of two counts.
pub(super) fn of_counts(before: f64, after: f64) -> f64 {
    (before.max(1.0) + after.max(1.0)).sqrt()
}

/// Half the interval of 95 % of one difference.
pub(super) fn margin(deviation: f64) -> f64 {
    ONE * deviation
}

/// Whether a difference is none by chance, where `compared` are looked at.
pub(super) fn is_significant(difference: f64, deviation: f64, compared: usize) -> bool {
    difference.abs() > quantile(1.0 - 0.05 / 2.0 / compared.max(1) as f64) * deviation
}

/// The point below which a standard normal variable lies with a probability from one half to 1. Abramowitz
/// and Stegun 26.2.23, whose error is below 4.5e-4.
fn quantile(probability: f64) -> f64 {
    let t = (-2.0 * (1.0 - probability).ln()).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    t - above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (probability, point) in
            [(0.975, 1.959_964), (0.995, 2.575_829), (0.9995, 3.290_527), (0.999_975, 4.055_627)]
        {
            assert!((quantile(probability) - point).abs() < 1e-3, "{probability}: {}", quantile(probability));
        }
    }

    /// xorshift, to draw samples.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }
    }

    /// Samples of functions with these shares in percent.
    fn draw(random: &mut Random, shares: &[u64], samples: u64) -> Vec<f64> {
        let mut hits = vec![0.0; shares.len()];
        for _ in 0..samples {
            let mut at = random.below(shares.iter().sum());
            for (hits, &share) in hits.iter_mut().zip(shares) {
                if at < share {
                    *hits += 1.0;
                    break;
                }
                at -= share;
            }
        }
        hits
    }

    fn significant(before: &[f64], after: &[f64]) -> Vec<bool> {
        let all = |hits: &[f64]| hits.iter().sum::<f64>();
        let pairs = before.iter().zip(after);
        pairs
            .map(|(&b, &a)| {
                let (b, a) = (Hits { hits: b, all: all(before) }, Hits { hits: a, all: all(after) });
                is_significant(a.hits / a.all - b.hits / b.all, of_shares(b, a), before.len())
            })
            .collect()
    }

    #[test]
    fn chance_is_seldom_significant_and_growth_mostly() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        // Fifty functions, most of them small.
        let mut shares = vec![300, 150, 100, 50];
        shares.resize(50, 400 / 46);
        let (mut by_chance, mut found) = (0, 0);
        // The first one takes half as much again: its share goes from 31 to 40 %.
        let mut grown = shares.clone();
        grown[0] = 450;
        for _ in 0..400 {
            let before = draw(&mut random, &shares, 3000);
            by_chance += usize::from(significant(&before, &draw(&mut random, &shares, 3000)).contains(&true));
            found += usize::from(significant(&before, &draw(&mut random, &grown, 3000))[0]);
        }
        // At most 5 in 100, and at least 95.
        assert!(by_chance <= 30, "{by_chance} of 400 pairs differ by chance");
        assert!(found >= 380, "{found} of 400");
    }
}
