//! What chance does to a count, so that a test neither fails by it nor passes because it looked at too
//! little.
//!
//! A recording is a draw: of a program's time, samples show some moments. A share that is found in `n` of
//! them is off from the truth by chance, the less the larger `n` is, and a test that demands "99.5 % of
//! the stacks are whole" of a program that has 99.6 % fails in one of three runs if it takes the number
//! that it found for the truth. So the question here is always: could a program for which the demand
//! holds have given this count? Bounds are those that such a program crosses in one of 100,000 runs.
//!
//! How much time there was to sample does not depend on chance but on what else the machine does. So the
//! recorded programs compute for a length of their own CPU time, not by the clock, and get as many samples
//! beside other work as alone; where a program runs on, the recording ends when the scheduler has given it
//! enough (`Test::record_until`). What is left to the machine is tried again (`again`) and says why.

use std::ops::RangeInclusive;

/// How often a bound is crossed by chance alone. A run of all tests compares some hundred times.
const FALSE_ALARMS: f64 = 1e-5;

/// The same, in standard deviations of a normal distribution, one-sided.
pub const DEVIATIONS: f64 = 4.265;

/// At most so many of `n` have what a share `p` of all have.
pub fn most(n: u64, p: f64) -> u64 {
    assert!((0.0..=1.0).contains(&p), "{p} is no share");
    if p == 0.0 || p == 1.0 {
        return if p == 0.0 { 0 } else { n };
    }
    // The binomial distribution, summed up from 0; by logarithms, as (1 - p)^n may be below all numbers.
    let mut log = n as f64 * (1.0 - p).ln();
    let mut sum = 0.0;
    for k in 0..n {
        sum += log.exp();
        if 1.0 - sum < FALSE_ALARMS {
            return k;
        }
        log += ((n - k) as f64 / (k + 1) as f64).ln() + (p / (1.0 - p)).ln();
    }
    n
}

/// At least so many of `n` have what a share `p` of all have.
pub fn least(n: u64, p: f64) -> u64 {
    n - most(n, 1.0 - p)
}

/// Requires that a share of at least `p` of all have something that `part` of `all` have; that there are
/// `enough` to tell; `said` is what is known.
pub fn at_least(part: u64, all: u64, p: f64, enough: u64, said: &str) {
    assert!(all >= enough, "{all} are too few, {enough} are needed: {said}");
    let bound = least(all, p);
    assert!(part >= bound, "{part} of {all}, and if it were {p} of all there would be {bound}: {said}");
}

/// How far a share that is found among `n` may be from `p`, as a share.
pub fn error(n: u64, p: f64) -> f64 {
    DEVIATIONS * (p * (1.0 - p) / n as f64).sqrt()
}

/// How many events that come at random there are if `mean` are expected: samples of some CPU time.
pub fn around(mean: f64) -> RangeInclusive<u64> {
    let error = DEVIATIONS * mean.sqrt();
    (mean - error).max(0.0).floor() as u64..=(mean + error).ceil() as u64
}

/// Tries something that the machine may keep from happening, up to `times`; each failure but the last is
/// told, and the last one ends the test.
pub fn again<T>(what: &str, times: u32, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    for time in 1.. {
        match attempt() {
            Ok(value) => return value,
            Err(why) if time < times => {
                let _ = std::io::Write::write_fmt(
                    &mut std::io::stderr(),
                    format_args!("AGAIN: {what}: attempt {time} of {times}: {why}\n"),
                );
            }
            Err(why) => panic!("{what}: {times} attempts failed; the last one: {why}"),
        }
    }
    unreachable!("a number of attempts ends");
}

/// Bounds by another way: the distribution summed up in decimal numbers of 60 digits, by Python's `decimal`.
#[test]
fn bounds_are_those_of_the_binomial_distribution() {
    for (n, p, bound) in [(8, 0.05, 5), (2000, 0.005, 26), (1000, 0.5, 567), (50_000, 0.9, 45_284)] {
        assert_eq!(most(n, p), bound, "{n} {p}");
        assert_eq!(least(n, 1.0 - p), n - bound, "{n} {p}");
    }
    assert_eq!(
        (most(10, 0.0), most(10, 1.0), most(0, 0.5), least(10, 1.0), least(10, 0.0)),
        (0, 10, 0, 10, 0)
    );
    assert_eq!(around(10_000.0), 9573..=10427);
}
