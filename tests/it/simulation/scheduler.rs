//! All tasks on the controller's thread, in an order that a seed decides.
//!
//! Tasks have their turns where the controller waits, and where a thread might be suspended ([`Scheduler::pass`]). Each has a
//! weight, drawn anew now and then: some are starved for a while, as by an unlucky kernel or a slow sink. Time passes in jumps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam::sync::Parker;

use super::world::World;
use crate::rng::Rng;
use backstay::circuit::Pick;
use backstay::pipeline::schedule::{Running, Scheduler, Task, Turn};

/// A life that takes more turns than this does not end.
const MOST_TURNS: u64 = 200_000;
/// Turns after which the weights are drawn anew.
const MOOD: u64 = 48;

/// The scheduler of one life.
#[derive(Debug)]
pub(super) struct SimScheduler {
    world: World,
    tasks: Arc<Mutex<Tasks>>,
}

#[derive(Default)]
struct Tasks {
    next_id: u64,
    slots: Vec<Slot>,
    turns: u64,
}

struct Slot {
    id: u64,
    name: String,
    /// `None` while it has its turn.
    task: Option<Box<dyn Task>>,
    due: Duration,
    weight: u64,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.slots.iter().map(|slot| (&slot.name, slot.due, slot.weight))).finish()
    }
}

impl SimScheduler {
    pub(super) fn new(world: World) -> Self {
        Self { world, tasks: Arc::default() }
    }

    /// Gives one task a turn; says when the next one is due if all of them pause.
    fn turn(&self) -> Option<Duration> {
        let (id, mut task) = {
            let tasks = &mut *lock(&self.tasks);
            let state = &mut *self.world.state();
            if tasks.turns.is_multiple_of(MOOD) {
                let weights = state.rng.one_of(&[[1, 1, 1, 1], [1, 4, 4, 16], [0, 1, 1, 8], [0, 0, 1, 1]]);
                tasks.slots.iter_mut().for_each(|slot| slot.weight = state.rng.one_of(&weights));
            }
            tasks.turns += 1;
            let ready = || tasks.slots.iter().enumerate().filter(|(_, slot)| slot.due <= state.now);
            let sum: u64 = ready().map(|(_, slot)| slot.weight).sum();
            if sum == 0 {
                return Some(tasks.slots.iter().map(|slot| slot.due).min().unwrap_or_default());
            }
            let mut at = state.rng.below(sum);
            let chosen = ready().find(|(_, slot)| {
                let hit = at < slot.weight;
                at = at.saturating_sub(slot.weight);
                hit
            });
            let place = chosen.map(|(place, _)| place)?;
            let slot = tasks.slots.get_mut(place)?;
            let id = slot.id;
            let task = slot.task.take()?;
            state.note("turn", id);
            (id, task)
        };
        let turn = task.turn(Duration::ZERO);
        let now = self.world.state().now;
        let mut tasks = lock(&self.tasks);
        if let Some(place) = tasks.slots.iter().position(|slot| slot.id == id) {
            match turn {
                Turn::Again => tasks.slots[place].task = Some(task),
                Turn::Pause(time) => {
                    tasks.slots[place].task = Some(task);
                    tasks.slots[place].due = now + time;
                }
                Turn::End => drop(tasks.slots.remove(place)),
            }
        }
        None
    }

    fn turns(&self, most: u64) {
        let turns = self.world.state().rng.below(most + 1);
        for _ in 0..turns {
            if self.turn().is_some() {
                return;
            }
        }
    }

    fn spend(&self, at_most: Duration) {
        let state = &mut *self.world.state();
        state.turns += 1;
        state.fidget();
        let ends = state.turns < MOST_TURNS;
        assert!(ends, "the pipeline does not end: {:?} {:?}", state.control.snapshot(), lock(&self.tasks));
        let micros = u64::try_from(at_most.as_micros()).unwrap_or(u64::MAX);
        let jump = if state.rng.once_in(12) { state.rng.below(700_000) } else { 0 };
        let time = state.rng.below(micros.max(1)) + jump;
        state.now += Duration::from_micros(time);
    }
}

impl Scheduler for SimScheduler {
    fn start(&self, name: &str, task: Box<dyn Task>) -> std::io::Result<Running> {
        let mut tasks = lock(&self.tasks);
        let id = tasks.next_id;
        tasks.next_id += 1;
        tasks.slots.push(Slot { id, name: name.to_owned(), task: Some(task), due: Duration::ZERO, weight: 1 });
        Ok(Running::new(Guard { tasks: Arc::clone(&self.tasks), id }))
    }

    fn wait(&self, _parker: &Parker, at_most: Duration) {
        self.spend(at_most);
        if let Some(due) = self.turn() {
            let state = &mut *self.world.state();
            state.now = state.now.max(due);
        }
        self.turns(3);
    }

    fn pass(&self) {
        self.spend(Duration::from_millis(2));
        self.turns(3);
    }

    fn worker_order(&self) -> Option<Pick> {
        let mut rng = Rng::new(self.world.state().rng.next());
        Some(Box::new(move |n| rng.below(n as u64) as usize))
    }
}

/// Takes its task off the list when it is dropped.
#[derive(Debug)]
struct Guard {
    tasks: Arc<Mutex<Tasks>>,
    id: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut tasks = lock(&self.tasks);
        let slot = tasks.slots.iter().position(|slot| slot.id == self.id).map(|place| tasks.slots.remove(place));
        drop(tasks);
        // What the task holds goes with it, outside of the lock.
        drop(slot);
    }
}

fn lock(tasks: &Mutex<Tasks>) -> MutexGuard<'_, Tasks> {
    tasks.lock().unwrap_or_else(PoisonError::into_inner)
}
