extern crate std;
use super::*;
use std::string::ToString;

#[test]
fn sizes_have_the_unit_that_keeps_them_short() {
    let cases: [(u64, &str); 12] = [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1537, "1.5 KiB"),
        (1_048_575, "1.0 MiB"),
        (1 << 20, "1 MiB"),
        (268_435_456, "256 MiB"),
        (123_731_968, "118 MiB"),
        (123_731_968 + 16, "118.0 MiB"),
        (1 << 40, "1 TiB"),
        (u64::MAX, "16.0 EiB"),
    ];
    for (size, text) in cases {
        assert_eq!(Bytes(size).to_string(), text);
    }
}

#[test]
fn counts_are_grouped() {
    let cases = [
        (0, "0"),
        (999, "999"),
        (1_000, "1,000"),
        (1_000_000, "1,000,000"),
        (12_034_005, "12,034,005"),
        (u64::MAX, "18,446,744,073,709,551,615"),
    ];
    for (count, text) in cases {
        assert_eq!(Count(count).to_string(), text);
    }
}

#[test]
fn only_all_is_100_percent_and_only_nothing_is_0() {
    let shares = [0.0, 0.000_01, 0.461, 0.999_99, 1.0].map(|share| Percent(share).to_string());
    assert_eq!(shares, ["0 %", "0.1 %", "46.1 %", "99.9 %", "100 %"]);
}

#[test]
fn numbers_can_be_padded() {
    assert_eq!(
        std::format!("[{:>8}] [{:<7}] [{:>6}]", Bytes(2048), Count(1234), Percent(0.5)),
        "[   2 KiB] [1,234  ] [50.0 %]"
    );
}

#[test]
fn text_that_does_not_fit_is_cut_between_characters() {
    assert_eq!(Text::<4>::new(format_args!("abé{}", "d")).as_str(), "abé");
    assert_eq!(Text::<4>::new(format_args!("abc{}", "é")).as_str(), "abc");
}
