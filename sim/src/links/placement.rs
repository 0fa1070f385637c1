//! Where workers are put: GPUs are numbered over all nodes, and a worker takes consecutive ones.
//!
//! * *Packed*: worker after worker, each on the first GPUs that are left. One that does not fit into the rest of a node
//!   starts on the next; one that is larger than a node starts on a fresh one and takes as many as it needs.
//! * *Spread*: worker after worker, each on the node behind that of the worker before it, starting over at the first node, so
//!   that the workers of every pool lie on as many nodes as there are.
//! * *Listed*: the caller says on which node each worker starts.

/// How workers are put on nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Node after node.
    Packed,
    /// Pool after pool, round the nodes.
    Spread,
    /// By worker, its (first) node.
    Listed(Vec<u32>),
}

/// Nodes to be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nodes {
    /// GPUs of each.
    pub gpus: u32,
    /// How many there are; `None` for as few as it takes.
    pub count: Option<u32>,
}

/// Why workers cannot be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom {
    /// The worker.
    pub worker: usize,
    /// The node it was to start on, if that was said.
    pub node: Option<u32>,
}

impl Placement {
    /// By worker, its first GPU.
    ///
    /// # Errors
    /// The first worker for which no GPUs are left.
    pub fn place(&self, gpus: &[u32], nodes: Nodes) -> Result<Vec<u32>, NoRoom> {
        // A node for each worker, or as many as it spans, is always enough.
        let enough = gpus.iter().map(|gpus| gpus.div_ceil(nodes.gpus)).sum();
        match (self, nodes.count) {
            (_, Some(count)) => self.place_on(gpus, nodes.gpus, count),
            (Placement::Packed, None) => self.place_on(gpus, nodes.gpus, enough),
            (Placement::Spread, None) => (1..enough)
                .find_map(|count| self.place_on(gpus, nodes.gpus, count).ok())
                .map_or_else(|| self.place_on(gpus, nodes.gpus, enough), Ok),
            (Placement::Listed(listed), None) => {
                let last = listed.iter().max().map_or(0, |node| node + 1);
                self.place_on(gpus, nodes.gpus, last + enough)
            }
        }
    }

    fn place_on(&self, gpus: &[u32], gpus_per_node: u32, count: u32) -> Result<Vec<u32>, NoRoom> {
        let mut board = Board {
            gpus_per_node,
            used: vec![0; count as usize],
        };
        let mut next = 0;
        let mut place = |(worker, &gpus): (usize, &u32)| {
            let (start, is_fixed) = match self {
                Placement::Packed => (0, false),
                Placement::Spread => (next, false),
                Placement::Listed(listed) => (listed[worker], true),
            };
            let found = if is_fixed {
                board.fits(start, gpus).then_some(start)
            } else {
                (0..count)
                    .map(|step| (start + step) % count)
                    .find(|&node| board.fits(node, gpus))
            };
            let node = found.ok_or(NoRoom {
                worker,
                node: is_fixed.then_some(start),
            })?;
            next = (node + gpus.div_ceil(gpus_per_node)) % count;
            Ok(board.take(node, gpus))
        };
        gpus.iter().enumerate().map(&mut place).collect()
    }
}

/// By node, GPUs taken.
struct Board {
    gpus_per_node: u32,
    used: Vec<u32>,
}

impl Board {
    fn fits(&self, node: u32, gpus: u32) -> bool {
        let span = gpus.div_ceil(self.gpus_per_node);
        let Some(nodes) = self.used.get(node as usize..(node + span) as usize) else {
            return false;
        };
        match nodes {
            [one] => one + gpus <= self.gpus_per_node,
            several => several.iter().all(|used| *used == 0),
        }
    }

    /// The first of the GPUs taken.
    fn take(&mut self, node: u32, gpus: u32) -> u32 {
        let first = node * self.gpus_per_node + self.used[node as usize];
        let mut left = gpus;
        for used in &mut self.used[node as usize..] {
            let taken = left.min(self.gpus_per_node);
            *used += taken;
            left -= taken;
            if left == 0 {
                break;
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOURS: Nodes = Nodes {
        gpus: 4,
        count: None,
    };

    #[test]
    fn packed_fills_gaps_and_spread_goes_round() {
        // Nodes of four: 2 + 2 on the first, 3 on the second, 1 in its gap, 8 on the third and fourth.
        let packed = Placement::Packed.place(&[2, 2, 3, 1, 8], FOURS);
        assert_eq!(packed, Ok(vec![0, 2, 4, 7, 8]));
        // Two nodes are enough for seven GPUs: 2 on the first, 2 on the second, 2 on the first, 1 on the second.
        let spread = Placement::Spread.place(&[2, 2, 2, 1], FOURS);
        assert_eq!(spread, Ok(vec![0, 4, 2, 6]));
        let listed = Placement::Listed(vec![1, 1, 0]).place(&[2, 2, 4], FOURS);
        assert_eq!(listed, Ok(vec![4, 6, 0]));
    }

    #[test]
    fn who_finds_no_room_is_named() {
        let two = Nodes {
            count: Some(2),
            ..FOURS
        };
        let no_room = Placement::Packed.place(&[3, 3, 2], two);
        assert_eq!(
            no_room,
            Err(NoRoom {
                worker: 2,
                node: None
            })
        );
        let no_room = Placement::Listed(vec![0, 0]).place(&[3, 2], two);
        assert_eq!(
            no_room,
            Err(NoRoom {
                worker: 1,
                node: Some(0)
            })
        );
        let no_room = Placement::Listed(vec![2]).place(&[1], two);
        assert_eq!(
            no_room,
            Err(NoRoom {
                worker: 0,
                node: Some(2)
            })
        );
    }
}
