//! Programs from a seed: activities that fail, timers, signals, cancellation, children. What people do comes only at quiescence,
//! because task boundaries depend on timing.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    case::{Case, Meanwhile, case},
    program::{Op, act, activity, all, catch, child, first, local, seq, shielded},
};

/// The case of a seed.
pub fn random(seed: u64) -> Case {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut ops = vec![step(&mut rng, 3, &mut 0)];
    ops.push(Op::Signals(1));
    ops.push(catch(step(&mut rng, 3, &mut 100)));
    // Waits for one more signal, or for a cancellation, after which it cleans up.
    let last = if rng.random_bool(0.5) { Op::Signals(2) } else { Op::Cancelled };
    let cancels = last == Op::Cancelled;
    ops.push(last);
    ops.push(shielded(step(&mut rng, 2, &mut 200)));
    let people = if cancels { signal_and_cancel } else { signal_twice };
    case(&format!("seed {seed}"), seq(ops)).with(people).loosely()
}

fn signal_twice(people: Meanwhile) -> futures::future::BoxFuture<'static, Value> {
    Box::pin(async move {
        for number in 1..=2 {
            people.quiescent().await;
            people.signal(number).await;
        }
        Value::Null
    })
}

fn signal_and_cancel(people: Meanwhile) -> futures::future::BoxFuture<'static, Value> {
    Box::pin(async move {
        people.quiescent().await;
        people.signal(1).await;
        people.quiescent().await;
        people.cancel().await;
        Value::Null
    })
}

/// `next` numbers what has to be unique in the program.
fn step(rng: &mut StdRng, depth: u32, next: &mut u32) -> Op {
    *next += 1;
    let number = *next;
    let leaf = depth == 0 || rng.random_bool(0.3);
    match if leaf { rng.random_range(0..7) } else { rng.random_range(7..12) } {
        0 => activity("echo", number),
        1 => activity("flaky", rng.random_range(1..4)),
        2 => {
            let mut failing = act("fail", json!("Random"));
            failing.attempts = rng.random_range(1..3);
            catch(Op::Activity(failing))
        }
        3 => Op::Timer(rng.random_range(1..80)),
        4 => local("echo", number),
        5 => catch(activity("refuse", number)),
        6 => Op::Memo(format!("m{number}"), json!(number)),
        7 => seq((0..rng.random_range(1..4)).map(|_| step(rng, depth - 1, next)).collect::<Vec<_>>()),
        8 => all((0..rng.random_range(2..4)).map(|_| step(rng, depth - 1, next)).collect::<Vec<_>>()),
        9 => catch(step(rng, depth - 1, next)),
        10 => Op::Child(child(&format!("$-{number}"), step(rng, depth - 1, next))),
        // The loser is far behind.
        _ => first([step(rng, 0, next), Op::Timer(120_000)]),
    }
}
