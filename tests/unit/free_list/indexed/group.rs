use super::{GREATEST_HINT, HINTS, LEAST_HINT, at_least, highest, lower, raise, scalar};
use crate::region::Node;

/// The chosen implementation against its slow, obvious twin.
#[test]
fn same_as_scalar() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..2000_u32 {
        let mut node = Node([0; 64]);
        for byte in &mut node.0 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> (56 - round % 8)) as u8;
        }
        for code in [0, 1, 2, 63, 64, 127, 128, 129, 200, 254, 255] {
            assert_eq!(at_least(&node, code), scalar::at_least(&node, code), "{node:?} {code}");
        }
        assert_eq!(highest(&node), scalar::highest(&node), "{node:?}");
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
