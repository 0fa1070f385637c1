//! GPUs that nobody has, and which of them a worker gets.
//!
//! All or nothing: a worker holds no GPU before it has all. With nodes, one that fits into a node gets its GPUs in the fullest
//! node that has room (best fit, lowest number first); one that spans nodes gets whole empty ones.

/// Free GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inventory {
    /// By node; `None` without a bound.
    free: Option<Vec<u32>>,
    per_node: u32,
    /// Nodes that are lost, as often as they are.
    lost: Vec<u32>,
}

/// The nodes in which a worker has its GPUs.
pub(crate) type Taken = Vec<u32>;

impl Inventory {
    /// So many GPUs, `None` for as many as are asked for, in nodes of equal size, or all alike.
    pub fn new(gpus: Option<u32>, gpus_per_node: Option<u32>) -> Self {
        let per_node = gpus_per_node.or(gpus).unwrap_or(0);
        let nodes = |gpus: u32| vec![per_node; (gpus / per_node.max(1)) as usize];
        Inventory {
            free: gpus.map(nodes),
            per_node,
            lost: Vec::new(),
        }
    }

    /// Nodes that a worker of so many GPUs spans.
    fn nodes_of(&self, gpus: u32) -> u32 {
        gpus.div_ceil(self.per_node.max(1)).max(1)
    }

    /// All GPUs of a worker, if they are there.
    pub fn take(&mut self, gpus: u32) -> Option<Taken> {
        let nodes = self.nodes_of(gpus) as usize;
        let Some(free) = self.free.as_mut().filter(|_| gpus > 0) else {
            return Some(Taken::new());
        };
        let each = if nodes == 1 { gpus } else { self.per_node };
        let mut fitting: Vec<u32> = (0..free.len() as u32)
            .filter(|&node| free[node as usize] >= each && !self.lost.contains(&node))
            .collect();
        fitting.sort_by_key(|&node| free[node as usize]);
        fitting.truncate(nodes);
        if fitting.len() < nodes {
            return None;
        }
        for &node in &fitting {
            free[node as usize] -= each;
        }
        Some(fitting)
    }

    /// Nobody gets GPUs of this node before it is there again.
    pub fn lose(&mut self, node: u32) {
        self.lost.push(node);
    }

    /// A node that was lost is there again, unless it was lost twice.
    pub fn regain(&mut self, node: u32) {
        let mut lost = self.lost.iter();
        let at = lost.position(|&lost| lost == node);
        self.lost.swap_remove(at.expect("what comes back was lost"));
    }

    /// Gives a worker's GPUs back.
    pub fn give_back(&mut self, gpus: u32, taken: &Taken) {
        if let Some(free) = &mut self.free {
            let each = if taken.len() == 1 {
                gpus
            } else {
                self.per_node
            };
            for &node in taken {
                free[node as usize] += each;
            }
        }
    }
}

/// Whether workers of so many GPUs each fit at once, in this order.
#[must_use]
pub fn fit_at_once(gpus: Option<u32>, gpus_per_node: Option<u32>, workers: &[u32]) -> bool {
    let mut inventory = Inventory::new(gpus, gpus_per_node);
    workers.iter().all(|&gpus| inventory.take(gpus).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_has_its_gpus_in_one_node_or_in_whole_ones() {
        let mut inventory = Inventory::new(Some(12), Some(4));
        let three = inventory.take(3).unwrap();
        let two = inventory.take(2).unwrap();
        assert_eq!((&three[..], &two[..]), (&[0][..], &[1][..]));
        // Best fit: the one GPU of node 0, not one of the two of node 1.
        assert_eq!(inventory.take(1).unwrap(), [0]);
        // Six GPUs are free, but only one node is empty.
        assert_eq!(inventory.take(8), None);
        inventory.give_back(2, &two);
        let eight = inventory.take(8).unwrap();
        assert_eq!(eight, [1, 2]);
        assert_eq!(inventory.take(1), None);
        inventory.give_back(8, &eight);
        assert!(inventory.take(4).is_some());
    }

    #[test]
    fn a_lost_node_has_nothing_to_give_until_it_is_back() {
        let mut inventory = Inventory::new(Some(8), Some(4));
        let first = inventory.take(2).unwrap();
        assert_eq!(first, [0]);
        inventory.lose(0);
        inventory.lose(0);
        inventory.give_back(2, &first);
        assert_eq!(inventory.take(2).unwrap(), [1]);
        assert_eq!(inventory.take(3), None);
        inventory.regain(0);
        assert_eq!(inventory.take(3), None);
        inventory.regain(0);
        assert_eq!(inventory.take(3).unwrap(), [0]);
    }

    #[test]
    fn without_nodes_gpus_are_counted_and_without_a_bound_not_even_that() {
        assert!(fit_at_once(Some(5), None, &[2, 3]));
        assert!(!fit_at_once(Some(5), None, &[2, 2, 2]));
        assert!(fit_at_once(None, None, &[1000, 1000]));
        assert!(!fit_at_once(Some(8), Some(4), &[3, 3, 2]));
        assert!(fit_at_once(Some(0), None, &[0, 0]) && !fit_at_once(Some(0), None, &[1]));
    }
}
