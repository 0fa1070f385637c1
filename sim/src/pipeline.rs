//! Pipeline parallelism: plans pass the stages of a worker one behind the other.
//!
//! In words: each stage holds a part of the layers and computes one plan at a time, in the order in which they were planned. A
//! plan enters a stage when it has left the one before and come over the link between them (the hop), and when the plan in
//! front of it has left. The same order at all stages, so plans end in order.

// Model: layers are dealt out evenly, embedding, output head and host work too, so that all stages take a plan's step time
// over the number of stages. Real last stages are longer by the output head, some per cent of a step.

use engine::{Span, Time};

/// When each stage of a worker is free.
#[derive(Debug, Clone)]
pub(crate) struct Pipeline {
    free: Vec<Time>,
}

impl Pipeline {
    pub fn new(stages: u32) -> Pipeline {
        Pipeline {
            free: vec![Time::ZERO; stages as usize],
        }
    }

    pub fn stages(&self) -> u64 {
        self.free.len() as u64
    }

    /// Takes in a plan that is handed over `now` and takes `stage` in each stage: when it enters the first and leaves the last.
    pub fn pass(&mut self, now: Time, stage: Span, hop: Span) -> (Time, Time) {
        let entered = self.free[0].max(now);
        let mut left = entered;
        for (index, free) in self.free.iter_mut().enumerate() {
            let comes = if index == 0 { left } else { left + hop };
            left = comes.max(*free) + stage;
            *free = left;
        }
        (entered, left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_overlap_and_the_slow_one_holds_up_the_rest() {
        let mut pipeline = Pipeline::new(3);
        let (short, long, hop) = (Span(10), Span(30), Span(1));
        // 0-10, 11-21, 22-32.
        assert_eq!(pipeline.pass(Time(0), short, hop), (Time(0), Time(32)));
        // 10-40, 41-71, 72-102.
        assert_eq!(pipeline.pass(Time(0), long, hop), (Time(10), Time(102)));
        // 40-50, waits for the second stage until 71, -81, and for the third until 102, -112.
        assert_eq!(pipeline.pass(Time(0), short, hop), (Time(40), Time(112)));
        // Nobody is there any more.
        assert_eq!(pipeline.pass(Time(500), short, hop), (Time(500), Time(532)));
    }
}
