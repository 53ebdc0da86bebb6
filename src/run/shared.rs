//! One answer for all who ask for the same at the same time.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use tokio::sync::Notify;

/// An answer that is asked for by one, and awaited by all others.
pub(super) struct Shared<T> {
    last: RefCell<Option<Rc<T>>>,
    is_under_way: Cell<bool>,
    ended: Notify,
}

/// Lets the next one ask, also when the one who asks gives up.
struct UnderWay<'a, T>(&'a Shared<T>);

impl<T> Drop for UnderWay<'_, T> {
    fn drop(&mut self) {
        self.0.is_under_way.set(false);
        self.0.ended.notify_waiters();
    }
}

impl<T> Shared<T> {
    pub(super) fn new() -> Self {
        Shared { last: RefCell::new(None), is_under_way: Cell::new(false), ended: Notify::new() }
    }

    /// The last answer if it is good enough, else a new one: the one that is under way, if that turns out
    /// to be good enough, or one that `ask` gets.
    pub(super) async fn get(&self, is_good: impl Fn(&T) -> bool, ask: impl AsyncFn() -> T) -> Rc<T> {
        loop {
            if let Some(last) = self.last.borrow().as_ref()
                && is_good(last)
            {
                return Rc::clone(last);
            }
            if self.is_under_way.replace(true) {
                self.ended.notified().await;
                continue;
            }
            let under_way = UnderWay(self);
            let answer = Rc::new(ask().await);
            *self.last.borrow_mut() = Some(answer);
            drop(under_way);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join_all;
    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_cost_one_answer_and_later_ones_another() {
        let shared = Shared::new();
        let asked = Cell::new(0);
        let get = |least: u32| {
            shared.get(
                move |answer| *answer >= least,
                async || {
                    sleep(Duration::from_secs(1)).await;
                    asked.set(asked.get() + 1);
                    asked.get()
                },
            )
        };
        join_all((0..100).map(|_| get(1))).await;
        assert_eq!(asked.get(), 1);
        assert_eq!(*get(1).await, 1);
        assert_eq!(*get(2).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_gives_up_holds_up_no_other() {
        let shared = Shared::new();
        let slow = shared.get(|_| true, async || sleep(Duration::from_secs(60)).await);
        let gave_up = timeout(Duration::from_secs(1), slow);
        let other = shared.get(|_| true, async || ());
        let (gave_up, other) = tokio::join!(gave_up, timeout(Duration::from_secs(2), other));
        assert!(gave_up.is_err() && other.is_ok());
    }
}
