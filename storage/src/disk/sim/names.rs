//! The names in a simulated directory: what callers see, what is durable, and the changes between.

use std::collections::BTreeMap;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(u64),
}

/// A change that is not durable yet. Each is atomic.
#[derive(Clone, Debug)]
pub(super) enum Move {
    Link {
        name: String,
        node: Node,
    },
    Unlink {
        name: String,
        node: Node,
    },
    /// `to` names the file from now on, whatever it named before; `from` does not any more.
    Rename {
        from: String,
        to: String,
        node: Node,
    },
}

#[derive(Clone, Debug, Default)]
pub(super) struct Dir {
    pub(super) live: BTreeMap<String, Node>,
    pub(super) durable: BTreeMap<String, Node>,
    pub(super) pending: Vec<Move>,
}

impl Dir {
    /// A directory after a restart: what is there is durable.
    pub(super) fn settled(names: BTreeMap<String, Node>) -> Self {
        Self { live: names.clone(), durable: names, pending: Vec::new() }
    }

    pub(super) fn change(&mut self, change: Move) {
        apply(&mut self.live, &change);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    /// The names after a power loss that kept the changes that `kept` chooses.
    pub(super) fn after_crash(&self, mut kept: impl FnMut() -> bool) -> BTreeMap<String, Node> {
        let mut names = self.durable.clone();
        for change in &self.pending {
            if kept() {
                apply(&mut names, change);
            }
        }
        names
    }

    /// Whether any state of the directory, now or after a crash, can name the file.
    pub(super) fn may_name(&self, file: u64) -> bool {
        let node = Node::File(file);
        let pending = |m: &Move| match m {
            Move::Link { node: n, .. } | Move::Unlink { node: n, .. } | Move::Rename { node: n, .. } => *n == node,
        };
        self.live.values().any(|n| *n == node)
            || self.durable.values().any(|n| *n == node)
            || self.pending.iter().any(pending)
    }
}

/// Applies a change to a set of names that may lack earlier ones: a change that was lost leaves nothing to undo.
fn apply(names: &mut BTreeMap<String, Node>, change: &Move) {
    let unlink = |names: &mut BTreeMap<String, Node>, name: &String, node: &Node| {
        if names.get(name) == Some(node) {
            names.remove(name);
        }
    };
    match change {
        Move::Link { name, node } => {
            names.insert(name.clone(), *node);
        }
        Move::Unlink { name, node } => unlink(names, name, node),
        Move::Rename { from, to, node } => {
            unlink(names, from, node);
            names.insert(to.clone(), *node);
        }
    }
}
