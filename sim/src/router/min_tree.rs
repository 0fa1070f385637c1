//! The least of many loads, how many share it, and which: a tournament.
//!
//! A complete binary tree stands over the loads; each node holds the least load below it and how many have exactly that.
//! A load that changes changes the nodes above it, and the n-th of the least is found from the root by going left while
//! enough of them are there. Both take steps by the logarithm of the number of loads. Unlike in a sorted set, those of equal
//! load stay in the order of their numbers, in which ties are drawn.

/// Loads by number, at least one.
#[derive(Debug, Clone)]
pub struct MinTree<Load> {
    /// Node 1 is the root, 2n and 2n + 1 are below n; the loads begin at `first`.
    nodes: Vec<Least<Load>>,
    first: usize,
    len: usize,
}

/// The least load and how many have it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Least<Load> {
    /// The load; in a place without one whatever, with a count of 0.
    pub load: Load,
    /// How many have exactly this.
    pub count: usize,
}

impl<Load: Copy + PartialOrd> MinTree<Load> {
    /// These loads.
    #[must_use]
    pub fn of(loads: &[Load]) -> Self {
        let load = *loads.first().expect("there is a load");
        let first = loads.len().next_power_of_two();
        let mut nodes = vec![Least { load, count: 0 }; 2 * first];
        for (node, &load) in nodes[first..].iter_mut().zip(loads) {
            *node = Least { load, count: 1 };
        }
        let len = loads.len();
        let mut tree = MinTree { nodes, first, len };
        for at in (1..first).rev() {
            tree.nodes[at] = tree.lesser(at);
        }
        tree
    }

    /// How many loads there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: there is a load.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// A load.
    #[must_use]
    pub fn get(&self, at: usize) -> Load {
        self.nodes[self.first + at].load
    }

    /// All loads, in order.
    pub fn loads(&self) -> impl Iterator<Item = Load> {
        let leaves = &self.nodes[self.first..self.first + self.len];
        leaves.iter().map(|leaf| leaf.load)
    }

    /// Changes a load.
    #[inline]
    pub fn set(&mut self, at: usize, load: Load) {
        let mut node = self.first + at;
        let mut least = Least { load, count: 1 };
        while self.nodes[node] != least {
            self.nodes[node] = least;
            if node == 1 {
                return;
            }
            let other = self.nodes[node ^ 1];
            least = if node & 1 == 0 {
                Least::of_both(least, other)
            } else {
                Least::of_both(other, least)
            };
            node /= 2;
        }
    }

    /// The least.
    #[must_use]
    #[inline]
    pub fn least(&self) -> Least<Load> {
        self.nodes[1]
    }

    /// The number of the `nth` of those that have the least load.
    #[must_use]
    #[inline]
    pub fn nth_least(&self, mut nth: usize) -> usize {
        let Least { load, count } = self.least();
        assert!(nth < count, "so many have the least load");
        let mut node = 1;
        while node < self.first {
            let left = self.nodes[2 * node];
            let here = if left.load == load { left.count } else { 0 };
            let goes_right = nth >= here;
            nth -= if goes_right { here } else { 0 };
            node = 2 * node + usize::from(goes_right);
        }
        node - self.first
    }

    /// Calls `visit` with the numbers of all loads that are at most `most`, in order.
    pub fn for_each_up_to(&self, most: Load, mut visit: impl FnMut(usize)) {
        let is_wanted = |node: &Least<Load>| node.count > 0 && node.load <= most;
        let mut node = 1;
        loop {
            if is_wanted(&self.nodes[node]) {
                if node < self.first {
                    node *= 2;
                    continue;
                }
                visit(node - self.first);
            }
            // On to the next subtree to the right.
            while node & 1 == 1 {
                node /= 2;
            }
            if node == 0 {
                return;
            }
            node += 1;
        }
    }

    fn lesser(&self, node: usize) -> Least<Load> {
        Least::of_both(self.nodes[2 * node], self.nodes[2 * node + 1])
    }
}

impl<Load: Copy + PartialOrd> Least<Load> {
    #[inline]
    fn of_both(left: Self, right: Self) -> Self {
        if right.count == 0 || left.load < right.load {
            left
        } else if right.load < left.load {
            right
        } else {
            Least {
                load: left.load,
                count: left.count + right.count,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_look_at_all(
            len in 1usize..20,
            changes in prop::collection::vec((0usize..20, 0u32..6), 0..60),
        ) {
            let mut plain = vec![3; len];
            let mut tree = MinTree::of(&plain);
            for (at, load) in changes {
                plain[at % len] = load;
                tree.set(at % len, load);
                let least = *plain.iter().min().unwrap();
                let which: Vec<usize> = (0..len).filter(|&at| plain[at] == least).collect();
                prop_assert_eq!(tree.least(), Least { load: least, count: which.len() });
                let found: Vec<usize> = (0..which.len()).map(|nth| tree.nth_least(nth)).collect();
                prop_assert_eq!(found, which);
                let mut low = Vec::new();
                tree.for_each_up_to(load, |at| low.push(at));
                let expected: Vec<usize> = (0..len).filter(|&at| plain[at] <= load).collect();
                prop_assert_eq!(low, expected);
            }
        }
    }
}
