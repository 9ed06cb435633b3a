use super::{
    Entry, GREATEST_HINT, HINTS, LEAST_HINT, first_from, highest, highest_short, lower, raise, scalar,
};
use crate::region::Node;

/// Numbers that are the same on every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0
    }
}

/// The first entry that is high enough, found by looking at one after the other.
#[track_caller]
fn expect_first<T: Entry + PartialEq + core::fmt::Debug>(
    node: &Node<T>,
    least: T,
    is_high: impl Fn(T) -> bool,
) {
    for from in 0..=64 {
        let place = (from..64).find(|&place| is_high(node.0[place])).unwrap_or(64);
        assert_eq!(first_from(node, from, least), place, "{node:?} {from} {least:?}");
    }
}

/// The chosen implementation compared with its slow, obvious twin. The highest bit of a byte is a mark.
#[test]
fn bytes_as_scalar() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..500 {
        let node = Node(core::array::from_fn(|_| (numbers.next() >> (56 - round % 8)) as u8));
        for least in [0, 1, 2, 3, 31, 62, 63, 64, 65, 126, 127] {
            expect_first(&node, least, |byte| byte & 0x7f >= least);
        }
        assert_eq!(highest(&node), scalar::highest(&node), "{node:?}");
    }
}

#[test]
fn wider_entries_as_scalar() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..100 {
        // Lengths are never negative.
        let words = Node(core::array::from_fn(|_| (numbers.next() >> 33) as i32 >> (round % 31)));
        let shorts = Node(words.0.map(|word| word as u16));
        for least in words.0.into_iter().chain([0, 1, 2, 0x7fff, 0x8000, 0xfffe, 0xffff, i32::MAX]) {
            expect_first(&words, least, |word| word >= least);
            expect_first(&shorts, least as u16, |short| short >= least as u16);
        }
        assert_eq!(highest_short(&shorts), scalar::highest_short(&shorts), "{shorts:?}");
    }
}

/// All implementations of the target, on parts of any node.
#[test]
fn parts_as_scalar() {
    let mut numbers = Numbers(1);
    for _ in 0..2000 {
        let words = Node(core::array::from_fn::<_, 64, _>(|_| (numbers.next() >> 40) as i32));
        let least = (numbers.next() >> 40) as i32;
        let (shorts, bytes) = (Node(words.0.map(|word| word as u16)), Node(words.0.map(|word| word as u8)));
        for part in 0..4 {
            let (words, shorts) = (&words.0.as_chunks().0[part], &shorts.0.as_chunks().0[part]);
            let bytes = &bytes.0.as_chunks().0[part];
            assert_eq!(i32::at_least(words, least), scalar::words_at_least(words, least));
            assert_eq!(u16::at_least(shorts, least as u16), scalar::shorts_at_least(shorts, least as u16));
            assert_eq!(
                u8::at_least(bytes, least as u8 & 0x7f),
                scalar::bytes_at_least(bytes, least as u8 & 0x7f)
            );
        }
    }
}

#[test]
fn hints_as_scalar() {
    let few = [0, 1, 2, 3, 5, 1 << 10, 1 << 23, (1 << 26) - 1].map(|chunk| LEAST_HINT + chunk);
    let all = few.into_iter().chain([GREATEST_HINT - 1, GREATEST_HINT]);
    for to in all.clone() {
        for first in 0..all.clone().count() {
            let mut hints = all.clone().cycle().skip(first);
            let hints: [i32; HINTS] = core::array::from_fn(|_| hints.next().unwrap());
            for (chosen, obvious) in
                [(lower as fn(&mut _, _), scalar::lower as fn(&mut _, _)), (raise, scalar::raise)]
            {
                let (mut one, mut other) = (hints, hints);
                chosen(&mut one, to);
                obvious(&mut other, to);
                assert_eq!(one, other, "{hints:?} {to}");
            }
        }
    }
}
