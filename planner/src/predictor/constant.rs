//! The last value again; zero before the first.

/// Keeps the last value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Constant {
    last: f64,
}

impl Constant {
    pub(super) fn observe(&mut self, value: f64) {
        self.last = value;
    }

    pub(super) fn forecast(&self) -> f64 {
        self.last
    }
}
