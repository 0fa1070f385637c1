//! Dense numbers for arbitrary 64-bit ids, in order of first appearance.
//!
//! Public traces number their blocks almost densely already, so small ids look their number up in a plain table; the
//! table grows with what has been seen, so that one stray large id costs a hash-map entry and not gigabytes.

use rustc_hash::FxHashMap;

const NONE: u32 = u32::MAX;

/// Numbers ids from 0 on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interner {
    next: u32,
    /// Numbers of small ids.
    small: Vec<u32>,
    /// Numbers of the others.
    large: FxHashMap<u64, u32>,
}

impl Interner {
    /// How many numbers were given.
    pub(crate) fn len(&self) -> u32 {
        self.next
    }

    /// The number of `id`.
    #[inline]
    pub(crate) fn number(&mut self, id: u64) -> u32 {
        match self.small.get_mut(id as usize) {
            Some(&mut number) if number != NONE => number,
            // The commonest new id: it has a place in the table, and cannot have been seen before.
            Some(place) if self.large.is_empty() && self.next < 1 << 31 => {
                *place = self.next;
                self.next += 1;
                *place
            }
            _ => self.number_new(id),
        }
    }

    /// A number that no id has.
    pub(crate) fn fresh(&mut self) -> u32 {
        let number = self.next;
        assert!(
            number < 1 << 31,
            "a trace has fewer than 2^31 different ids"
        );
        self.next += 1;
        number
    }

    #[cold]
    fn number_new(&mut self, id: u64) -> u32 {
        if let Some(&number) = self.large.get(&id) {
            return number;
        }
        let number = self.fresh();
        let limit = 1024 + 4 * u64::from(self.next);
        if id < self.small.len() as u64 {
            self.small[id as usize] = number;
        } else if id < limit {
            self.small
                .resize((id as usize + 1).next_power_of_two(), NONE);
            self.small[id as usize] = number;
        } else {
            self.large.insert(id, number);
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_first_appearance_for_small_and_large_ids() {
        let mut interner = Interner::default();
        let ids = [7, u64::MAX, 0, 7, 1 << 40, u64::MAX, 5000, 1 << 40, 5000];
        let numbers: Vec<u32> = ids.iter().map(|&id| interner.number(id)).collect();
        assert_eq!(numbers, [0, 1, 2, 0, 3, 1, 4, 3, 4]);
        assert_eq!(interner.fresh(), 5);
        assert_eq!(interner.len(), 6);
    }

    #[test]
    fn an_id_keeps_its_number_when_the_table_grows_over_it() {
        let mut interner = Interner::default();
        assert_eq!(interner.number(3000), 0);
        for id in 0..2000 {
            interner.number(id);
        }
        assert_eq!(interner.number(3000), 0);
    }
}
