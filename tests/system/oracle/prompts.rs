//! Prompts and answers of random requests.

use super::dice::Dice;
use super::scenario::{Request, Segment};

/// How many tokens are asked for: one and the longest more often than others.
pub fn output_len(dice: &mut Dice, longest: usize) -> usize {
    match dice.between(0, 5) {
        0 => 1,
        1 => longest,
        _ => dice.between(1, longest),
    }
}

/// A length up to `longest`, often at or next to a multiple of the block size.
fn length(dice: &mut Dice, block_size: usize, longest: usize) -> usize {
    let length = match dice.between(0, 3) {
        0 => dice.between(0, longest / block_size) * block_size + dice.between(0, 2),
        1 => dice.between(0, longest / 4),
        _ => dice.between(1, longest),
    };
    length
        .saturating_sub(usize::from(dice.chance(10)))
        .clamp(1, longest.max(1))
        .min(4096)
}

/// A prompt that may share its beginning with others, or quote an answer.
pub fn prompt(
    dice: &mut Dice,
    earlier: &[Request],
    block_size: usize,
    longest: usize,
) -> Vec<Segment> {
    let own = 100 + earlier.len() as u64;
    let mut prompt = Vec::new();
    let style = dice.between(0, 9);
    if style < 3 || earlier.is_empty() {
        // One of a few contents that many requests begin with.
        prompt.push(Segment::Content {
            id: dice.between(0, 2) as u64,
            len: length(dice, block_size, longest),
        });
    } else if style < 8 {
        // An earlier prompt, most often with its answer: the next turn of a conversation, or the same question again.
        let request = dice.between(0, earlier.len() - 1);
        prompt.clone_from(&earlier[request].prompt);
        let output_len = earlier[request].output_len;
        let quoted = if dice.chance(60) {
            output_len
        } else {
            dice.between(0, output_len)
        };
        if quoted > 0 && dice.chance(75) {
            prompt.push(Segment::Output {
                request,
                len: quoted,
            });
        }
    } else if style == 8 {
        // An answer out of its context.
        let request = dice.between(0, earlier.len() - 1);
        prompt.push(Segment::Output {
            request,
            len: earlier[request].output_len,
        });
    }
    let used: usize = prompt.iter().map(|segment| segment.len()).sum();
    if prompt.is_empty() || (used < longest && dice.chance(60)) {
        prompt.push(Segment::Content {
            id: own,
            len: length(dice, block_size, longest.saturating_sub(used).max(1)),
        });
    }
    // A chain of turns may have outgrown what is asked for here.
    if used > longest && dice.chance(90) {
        prompt = vec![Segment::Content {
            id: own,
            len: length(dice, block_size, longest),
        }];
    }
    prompt
}
