use super::*;

#[test]
fn words_are_zero_until_they_are_set() {
    let mut words = Words::new(1000).unwrap();
    let last = words.count() - 1;
    assert!(last >= 999 && (0..=last).all(|index| words.get(index) == 0));
    words.set(last, 7);
    words.set(last + 1, 8);
    assert_eq!((words.get(last), words.get(last + 1), words.get(usize::MAX)), (7, 0, 0));
    assert!(Words::new(usize::MAX).is_err());
    assert_eq!((Words::NONE.count(), Words::NONE.get(0)), (0, 0));
}
