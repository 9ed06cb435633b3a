extern crate std;
use super::*;

#[inline(never)]
fn outer(depth: usize) -> Stack {
    let stack = if depth == 0 { Stack::take(1) } else { outer(depth - 1) };
    core::hint::black_box(&stack);
    stack
}

#[test]
fn a_stack_leads_from_the_inside_out() {
    let (short, long) = (outer(0), outer(5));
    let addresses = long.addresses();
    assert!(short.addresses().len() > 2);
    assert!(addresses[1..6].iter().all(|address| *address == addresses[1]), "{addresses:x?}");
    assert_eq!(short.addresses()[0], addresses[0], "both begin in the same function");
    assert_ne!(addresses[5], addresses[6]);
}

#[test]
fn deep_stacks_keep_their_inside() {
    let stack = outer(100);
    assert_eq!(stack.addresses().len(), FRAMES);
    assert!(stack.addresses()[1..].iter().all(|address| *address == stack.addresses()[1]));
}

#[test]
fn no_stack_is_taken_inside_of_another() {
    Stack::warm_up();
    let inside = Inside::enter().expect("there is room");
    assert!(outer(0).addresses().is_empty());
    std::thread::spawn(|| assert!(!outer(0).addresses().is_empty())).join().unwrap();
    drop(inside);
    assert!(!outer(0).addresses().is_empty());
}
