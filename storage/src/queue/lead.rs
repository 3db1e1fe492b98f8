//! Of those who wait for something to be done, one leads: it decides what is done next, for all. It hands over to the next
//! as soon as it has decided, and does what takes long without the lead.
//!
//! The lead is a flag that nobody ever blocks on: who sets it works, who finds it set leaves a note in an [`Inbox`] and
//! parks. So does who would find nothing to do ([`Goal::work`]).
//!
//! No wish is forgotten. A waiter (1) pushes its note, (2) fences, (3) looks whether its wish is met, and if there is work,
//! tries the lead, (4) parks. A leader (a) works, (b) empties the inbox into its list, sorts out whose wish is met and, if
//! there is work, an appointee, lets go of the lead, unparks them, (c) fences, (d) without an appointee, looks into the inbox
//! again and, if there is something, tries the lead anew. The fences (2) and (c) are ordered: if (2) is first, (d) sees the
//! note; else (3) finds the lead free (or held by a later leader, who is before its own (b)). An appointee whose wish was
//! met meanwhile does (b) to (d) for the others. New work comes from a leader, who looks at (b) whether there is any left, or
//! from a thread that then waits, and so does (1) to (3) itself. So whenever the lead is free and there is work for a thread
//! that waits, a thread is awake that will try the lead.
//!
//! Tasks (futures) cannot lead, since a poll must not block: while a wish of theirs could be met and no thread waits,
//! [`Goal::tasks_wait`] is called, for a thread of the goal's owner to lead for them.
//!
//! Invariant, on which the SAFETY arguments rest: one [`Guard`] at most exists at a time. It is made by the thread that
//! changed `held` from false to true, and only its drop sets it back.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

use super::inbox::Inbox;
use super::sync::{Arc, AtomicBool, Ordering, Thread, UnsafeCell, fence, thread};

/// What is waited for.
pub(crate) trait Goal {
    /// A wish.
    type Wish: Copy;
    /// Whether it is met, or nothing will ever meet it: then nobody waits any longer.
    fn met(&self, wish: Self::Wish) -> bool;
    /// Whether a leader who has this wish would find something to do. If not, who makes something to do then waits itself,
    /// or leads.
    fn work(&self, wish: Self::Wish) -> bool;
    /// Whether work would meet the wish, now or later, without anything else happening.
    fn can_meet(&self, wish: Self::Wish) -> bool;
    /// Tasks wait for what a leader could meet, and no thread does. Called without the lead.
    fn tasks_wait(&self) {}
}

enum Who {
    Thread(Thread),
    /// Let go of when it is woken, or does not wait any more: whoever it wakes may own the lead.
    Task(Mutex<Option<Waker>>),
}

/// A note that was left, for who left it.
pub(crate) type Note<W> = Arc<Waiter<W>>;

/// One that waits.
pub(crate) struct Waiter<W> {
    wish: W,
    who: Who,
    /// It is to take the lead, or to see that another does.
    appointed: AtomicBool,
    /// It does not wait any more.
    gone: AtomicBool,
}

impl<W> Waiter<W> {
    /// It is not to be woken any more.
    pub(crate) fn leave(&self) {
        self.gone.store(true, Ordering::Relaxed);
        drop(self.waker());
    }

    fn wake(&self) {
        if let Who::Thread(thread) = &self.who {
            thread.unpark();
        } else if let Some(waker) = self.waker() {
            waker.wake();
        }
    }

    fn waker(&self) -> Option<Waker> {
        match &self.who {
            Who::Thread(_) => None,
            Who::Task(waker) => waker.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }
}

struct Led<T, W> {
    work: T,
    /// Those whose notes were read, in no order.
    waiting: Vec<Arc<Waiter<W>>>,
    /// Those who are about to be woken; kept for its memory.
    waking: Vec<Arc<Waiter<W>>>,
}

/// The lead over work of type `T`.
pub(crate) struct Lead<T, W> {
    held: AtomicBool,
    led: UnsafeCell<Led<T, W>>,
    inbox: Inbox<Arc<Waiter<W>>>,
    /// A leader panicked: its work may be half done.
    broken: AtomicBool,
}

// SAFETY: (1) the work is reached through the one guard only (the invariant above), whose making and drop are ordered by
// the Acquire and Release of `held`: `T: Send` is enough. (2) Notes are shared, and made of atomics, a wish and a handle.
unsafe impl<T: Send, W: Send + Sync> Sync for Lead<T, W> {}
// SAFETY: as above: a lead owns its work.
unsafe impl<T: Send, W: Send + Sync> Send for Lead<T, W> {}

/// The lead, held. [`Guard::hand_over`] lets go of it; merely dropping it would leave others waiting.
pub(crate) struct Guard<'a, T, W> {
    lead: &'a Lead<T, W>,
}

impl<T, W> Guard<'_, T, W> {
    fn led<R>(&self, f: impl FnOnce(&Led<T, W>) -> R) -> R {
        // SAFETY: (1) this is the only guard, and `&self` keeps `led_mut` away for the length of the call.
        self.lead.led.with(|led| f(unsafe { &*led }))
    }

    fn led_mut<R>(&mut self, f: impl FnOnce(&mut Led<T, W>) -> R) -> R {
        // SAFETY: (2) this is the only guard, and `&mut self` is the only use of it.
        self.lead.led.with_mut(|led| f(unsafe { &mut *led }))
    }
}

impl<T, W> Drop for Guard<'_, T, W> {
    fn drop(&mut self) {
        // `held` is only ever swapped, never stored: all changes of it then are in one order for loom, too, which else lets
        // a swap read what an earlier one had overwritten.
        if std::thread::panicking() {
            // Whoever waits takes the lead next, and finds it broken.
            self.lead.broken.store(true, Ordering::Relaxed);
            let inbox = self.lead.inbox.take();
            let waiting = self.led_mut(|led| std::mem::take(&mut led.waiting));
            self.lead.held.swap(false, Ordering::Release);
            waiting.into_iter().chain(inbox).for_each(|waiter| waiter.wake());
        } else {
            self.lead.held.swap(false, Ordering::Release);
        }
    }
}

impl<T, W> Deref for Guard<'_, T, W> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: (3) as (1): the borrow of self lasts as long as the reference.
        self.lead.led.with(|led| unsafe { &(*led).work })
    }
}

impl<T, W> DerefMut for Guard<'_, T, W> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: (4) as (2): the unique borrow of self lasts as long as the reference.
        self.lead.led.with_mut(|led| unsafe { &mut (*led).work })
    }
}

impl<T, W: Copy> Lead<T, W> {
    pub(crate) fn new(work: T) -> Self {
        Self {
            held: AtomicBool::new(false),
            led: UnsafeCell::new(Led { work, waiting: Vec::new(), waking: Vec::new() }),
            inbox: Inbox::new(),
            broken: AtomicBool::new(false),
        }
    }

    /// The lead, if nobody has it.
    pub(crate) fn try_lead(&self) -> Option<Guard<'_, T, W>> {
        // `then`, since a guard that is made and dropped lets go. A swap, not a load: it reads the latest value, on which the argument above rests.
        (!self.held.swap(true, Ordering::Acquire)).then(|| Guard { lead: self })
    }

    /// Whether a leader panicked.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Waits until the wish is met, or the lead is free: then the caller has it, and works until the wish is met.
    pub(crate) fn wait(&self, goal: &impl Goal<Wish = W>, wish: W) -> Option<Guard<'_, T, W>> {
        if goal.met(wish) {
            return None;
        }
        if goal.work(wish)
            && let Some(guard) = self.try_lead()
        {
            return Some(guard);
        }
        loop {
            let waiter = self.note(wish, Who::Thread(thread::current())); // (1), (2)
            let mut first = true;
            let guard = loop {
                if !first {
                    thread::park(); // (4)
                }
                first = false;
                // (3)
                if waiter.appointed.load(Ordering::Acquire) {
                    break self.try_lead();
                }
                if goal.met(wish) {
                    // Whoever met it leads, and looks after the others.
                    waiter.leave();
                    return None;
                }
                if goal.work(wish)
                    && let Some(guard) = self.try_lead()
                {
                    break Some(guard);
                }
            };
            waiter.leave();
            match (guard, goal.met(wish)) {
                (Some(guard), false) => return Some(guard),
                // Nobody may be left without a leader: look after the others.
                (Some(guard), true) => {
                    guard.hand_over(goal);
                    return None;
                }
                // Another was quicker, and reads the inbox before it lets go.
                (None, true) => return None,
                (None, false) => {}
            }
        }
    }

    /// Leaves a note for a task, which is woken once when its wish is met. The caller looks at the goal again *after*
    /// this, and lets somebody lead.
    pub(crate) fn note_task(&self, wish: W, waker: Waker) -> Note<W> {
        self.note(wish, Who::Task(Mutex::new(Some(waker))))
    }

    fn note(&self, wish: W, who: Who) -> Note<W> {
        let waiter = Arc::new(Waiter { wish, who, appointed: AtomicBool::new(false), gone: AtomicBool::new(false) });
        self.inbox.push(waiter.clone());
        fence(Ordering::SeqCst);
        waiter
    }

    /// Wakes those whose wish is met, after something else than a leader's work met them; `wish` is one of these. Whoever
    /// leads does it for the note that is left, even if it has looked at the others already.
    pub(crate) fn wake(&self, goal: &impl Goal<Wish = W>, wish: W) {
        if let Some(guard) = self.lead_or_note(wish) {
            guard.hand_over(goal);
        }
    }

    /// The lead, or else whoever has it reads a note of this wish before it lets go; nobody is to be woken for that.
    pub(crate) fn lead_or_note(&self, wish: W) -> Option<Guard<'_, T, W>> {
        self.try_lead().or_else(|| {
            self.note(wish, Who::Task(Mutex::new(None)));
            self.try_lead()
        })
    }
}

impl<T, W: Copy> Guard<'_, T, W> {
    /// Puts the notes that were left on the list.
    pub(crate) fn read_notes(&mut self) {
        let notes = self.lead.inbox.take();
        self.led_mut(|led| led.waiting.extend(notes));
    }

    /// Whether a wish is still open for which `is` is true, of those whose notes were read.
    pub(crate) fn any_waits(&self, is: impl Fn(W) -> bool) -> bool {
        self.led(|led| led.waiting.iter().any(|w| is(w.wish) && !w.gone.load(Ordering::Relaxed)))
    }

    /// Lets go of the lead: steps (b) to (d).
    pub(crate) fn hand_over(mut self, goal: &impl Goal<Wish = W>) {
        loop {
            self.read_notes();
            let (mut waking, appointee, tasks) = self.led_mut(|led| {
                let mut waking = std::mem::take(&mut led.waking);
                led.waiting.retain(|waiter| {
                    if waiter.gone.load(Ordering::Relaxed) {
                        return false;
                    }
                    let met = goal.met(waiter.wish);
                    if met {
                        waking.push(waiter.clone());
                    }
                    !met
                });
                let is_appointee = |w: &Arc<Waiter<W>>| matches!(w.who, Who::Thread(_)) && goal.work(w.wish);
                let appointee = led.waiting.iter().position(is_appointee).map(|at| led.waiting.swap_remove(at));
                let waits = |w: &Arc<Waiter<W>>| goal.can_meet(w.wish) && goal.work(w.wish);
                let tasks = appointee.is_none() && led.waiting.iter().any(waits);
                (waking, appointee, tasks)
            });
            let lead = self.lead;
            // The lead is free before any of them looks.
            drop(self);
            if let Some(waiter) = &appointee {
                // It leaves a new note if another is quicker.
                waiter.appointed.store(true, Ordering::Release);
                waiter.wake();
            }
            waking.drain(..).for_each(|waiter| waiter.wake());
            if appointee.is_some() {
                return;
            }
            if tasks {
                goal.tasks_wait();
            }
            fence(Ordering::SeqCst); // (c)
            if lead.inbox.is_empty() {
                return;
            }
            // (d)
            match lead.try_lead() {
                Some(guard) => self = guard,
                None => return,
            }
            self.led_mut(|led| led.waking = waking);
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use loom::thread;

    use super::{Goal, Lead};

    /// Counts what was asked for, what a leader took on, and what was done.
    struct Count {
        asked: AtomicUsize,
        taken: AtomicUsize,
        /// Parts that were done without the lead, by the thread that took them on; for a leader to add up.
        reports: AtomicUsize,
        done: AtomicUsize,
        /// At most one part is being done: another must wait for its report.
        busy: AtomicBool,
    }

    impl Goal for Count {
        type Wish = usize;

        fn met(&self, wish: usize) -> bool {
            self.done.load(Ordering::Acquire) >= wish
        }

        fn work(&self, _: usize) -> bool {
            let new = || self.asked.load(Ordering::Acquire) > self.taken.load(Ordering::Acquire);
            self.reports.load(Ordering::Acquire) > 0 || (!self.busy.load(Ordering::Acquire) && new())
        }

        fn can_meet(&self, _: usize) -> bool {
            true
        }
    }

    /// Asks for one more, and waits until it is done. Who leads takes on all that was asked for, and does it without the
    /// lead.
    fn ask(lead: &Lead<(), usize>, goal: &Count) {
        let wish = goal.asked.fetch_add(1, Ordering::AcqRel) + 1;
        while let Some(guard) = lead.wait(goal, wish) {
            let reported = goal.reports.swap(0, Ordering::AcqRel);
            if reported > 0 {
                goal.done.fetch_add(reported, Ordering::AcqRel);
                goal.busy.store(false, Ordering::Release);
            }
            let mut part = 0;
            if !goal.met(wish) && !goal.busy.load(Ordering::Acquire) {
                part = goal.asked.load(Ordering::Acquire) - goal.taken.load(Ordering::Acquire);
                goal.taken.fetch_add(part, Ordering::AcqRel);
                goal.busy.store(part > 0, Ordering::Release);
            }
            guard.hand_over(goal);
            if part > 0 {
                goal.reports.fetch_add(part, Ordering::AcqRel);
            }
        }
        assert!(goal.met(wish));
    }

    fn model(threads: usize, preemptions: usize) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(move || {
            let goal = Arc::new(Count {
                asked: AtomicUsize::new(0),
                taken: AtomicUsize::new(0),
                reports: AtomicUsize::new(0),
                done: AtomicUsize::new(0),
                busy: AtomicBool::new(false),
            });
            let lead = Arc::new(Lead::new(()));
            // All but this thread: loom's join does not bear a late unpark.
            let askers: Vec<_> = (0..threads)
                .map(|_| {
                    let (lead, goal) = (lead.clone(), goal.clone());
                    thread::spawn(move || ask(&lead, &goal))
                })
                .collect();
            // A wish that is forgotten shows as a deadlock.
            askers.into_iter().for_each(|t| t.join().unwrap());
            assert_eq!(goal.done.load(Ordering::Relaxed), threads);
        });
    }

    /// A failure ends all waiting, whoever leads meanwhile, even one that has looked at the notes already.
    #[test]
    fn a_failure_wakes_who_waits() {
        struct Dead(AtomicBool);
        impl Goal for Dead {
            type Wish = ();
            fn met(&self, _: ()) -> bool {
                self.0.load(Ordering::Acquire)
            }
            fn work(&self, _: ()) -> bool {
                false
            }
            fn can_meet(&self, _: ()) -> bool {
                true
            }
        }
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let shared = Arc::new((Lead::new(()), Dead(AtomicBool::new(false))));
            let of = |f: fn(&Lead<(), ()>, &Dead)| {
                let shared = shared.clone();
                thread::spawn(move || f(&shared.0, &shared.1))
            };
            let threads = [
                of(|lead, dead| assert!(lead.wait(dead, ()).is_none())),
                of(|lead, dead| {
                    if let Some(guard) = lead.try_lead() {
                        guard.hand_over(dead);
                    }
                }),
                of(|lead, dead| {
                    dead.0.store(true, Ordering::Release);
                    lead.wake(dead, ());
                }),
            ];
            threads.into_iter().for_each(|t| t.join().unwrap());
        });
    }

    #[test]
    fn two_who_ask_are_served() {
        model(2, 3);
    }

    #[test]
    fn three_who_ask_are_served() {
        model(3, 1);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::{Goal, Lead};

    #[derive(Default)]
    struct Count {
        asked: AtomicUsize,
        done: AtomicUsize,
        tasks: AtomicUsize,
    }

    impl Goal for Count {
        type Wish = usize;

        fn met(&self, wish: usize) -> bool {
            self.done.load(Ordering::Acquire) >= wish
        }

        fn work(&self, wish: usize) -> bool {
            self.asked.load(Ordering::Acquire) >= wish
        }

        fn can_meet(&self, wish: usize) -> bool {
            self.work(wish)
        }

        fn tasks_wait(&self) {
            self.tasks.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn threads_are_all_served_and_share_the_work() {
        const EACH: usize = if cfg!(miri) { 20 } else { 5_000 };
        let (goal, lead) = (Count::default(), Lead::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let wish = goal.asked.fetch_add(1, Ordering::AcqRel) + 1;
                        if let Some(mut guard) = lead.wait(&goal, wish) {
                            *guard += 1;
                            std::thread::yield_now();
                            goal.done.store(goal.asked.load(Ordering::Acquire), Ordering::Release);
                            guard.hand_over(&goal);
                        }
                        assert!(goal.met(wish));
                    }
                });
            }
        });
        let led = lead.try_lead().map(|guard| *guard).unwrap();
        assert!(led <= 8 * EACH);
        assert_eq!(goal.done.load(Ordering::Relaxed), 8 * EACH);
    }

    #[test]
    fn a_leader_that_panics_leaves_nobody_waiting() {
        let (goal, lead) = (Count::default(), Lead::new(()));
        std::thread::scope(|scope| {
            let guard = lead.try_lead().unwrap();
            goal.asked.store(1, Ordering::Release);
            let follower = scope.spawn(|| lead.wait(&goal, 1).is_some() && lead.is_broken());
            while lead.inbox.is_empty() {
                std::thread::yield_now();
            }
            let leader = std::panic::AssertUnwindSafe(move || {
                let _guard = guard;
                panic!("on purpose");
            });
            assert!(std::panic::catch_unwind(leader).is_err());
            assert!(follower.join().unwrap());
        });
    }

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_a_waker_owns_is_let_go_of_when_its_task_leaves() {
        let lead = Lead::<(), usize>::new(());
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let left = lead.note_task(1, Waker::from(woken.clone()));
        assert_eq!(Arc::strong_count(&woken), 2);
        left.leave();
        assert_eq!(Arc::strong_count(&woken), 1);
    }

    #[test]
    fn a_task_is_woken_once_and_its_owner_is_told_that_it_waits() {
        let (goal, lead) = (Count::default(), Lead::new(()));
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let left = lead.note_task(1, Waker::from(woken.clone()));
        left.leave();
        lead.note_task(1, Waker::from(woken.clone()));
        lead.wake(&goal, 1);
        assert_eq!(goal.tasks.load(Ordering::Relaxed), 0, "nobody could meet it");
        goal.asked.store(1, Ordering::Release);
        lead.wake(&goal, 1);
        assert_eq!((goal.tasks.load(Ordering::Relaxed), woken.0.load(Ordering::Relaxed)), (1, 0));
        goal.done.store(1, Ordering::Release);
        lead.wake(&goal, 1);
        lead.wake(&goal, 1);
        assert_eq!((goal.tasks.load(Ordering::Relaxed), woken.0.load(Ordering::Relaxed)), (1, 1));
    }
}
