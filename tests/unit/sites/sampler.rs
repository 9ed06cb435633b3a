extern crate std;
use super::*;

fn sampled(sampler: &Sampler, bytes: usize, requests: usize) -> usize {
    (0..requests).filter(|_| sampler.is_due(bytes)).count()
}

#[test]
fn one_interval_is_all_and_another_none() {
    let sampler = Sampler::unset();
    assert_eq!((sampler.interval(), sampled(&sampler, 100, 10)), (0, 0));
    sampler.set_interval(1);
    assert_eq!(sampled(&sampler, 0, 10), 10);
    sampler.set_interval(0);
    assert_eq!(sampled(&sampler, usize::MAX, 10), 0);
}

#[test]
fn the_default_is_what_is_given_or_512_kib() {
    let (one, other) = (Sampler::unset(), Sampler::unset());
    assert_eq!((one.interval_or(|| Some(7)), one.interval_or(|| Some(8))), (7, 7));
    assert_eq!(other.interval_or(|| None), 512 << 10);
}

/// The expectation is exact; the deviation allowed is five times the standard one, and the generator has one seed.
#[test]
fn samples_stand_for_all_requests() {
    for (bytes, interval) in [(16, 4096), (100, 1000), (1000, 1000), (5000, 1000), (1 << 40, 1000)] {
        let sampler = Sampler::unset();
        sampler.set_interval(interval);
        let requests = 200_000;
        let chance = 1.0 - (-(bytes as f64) / interval as f64).exp();
        let expected = requests as f64 * chance;
        let deviation = (expected * (1.0 - chance)).sqrt();
        let found = sampled(&sampler, bytes, requests) as f64;
        assert!((found - expected).abs() <= 5.0 * deviation + 0.5, "{bytes}: {found}, {expected}");
        let weight = weight(bytes, interval);
        assert!((weight * chance - 1.0).abs() < 1e-6, "{bytes}: {weight}");
    }
    assert_eq!((weight(16, 1), weight(16, 0)), (1.0, 1.0));
}

#[test]
fn distances_are_exponential() {
    let sampler = Sampler::unset();
    let draws = 100_000;
    let one = |_| exponential(|| sampler.draw()) as f64 / 2_f64.powi(64);
    let all: std::vec::Vec<f64> = (0..draws).map(one).collect();
    let mean = all.iter().sum::<f64>() / draws as f64;
    assert!((mean - 1.0).abs() < 0.02, "{mean}");
    for limit in [0.1, 0.5, 1.0, 2.0, 4.0_f64] {
        let above = all.iter().filter(|&&x| x > limit).count() as f64 / draws as f64;
        assert!((above - (-limit).exp()).abs() < 0.01, "{above} above {limit}");
    }
}

#[test]
fn an_interrupted_draw_heals_itself() {
    let sampler = Sampler::unset();
    sampler.set_interval(1000);
    sampler.left.store(usize::MAX - 5, Ordering::Relaxed);
    assert!(sampler.is_due(16) && sampler.left.load(Ordering::Relaxed) < 1 << 20);
}
