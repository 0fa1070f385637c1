//! The fast path for the commonest line there is:
//!
//! ```text
//! {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 2353]}
//! ```
//!
//! The four keys in any order, each once, JSON white space anywhere, whole numbers of at most 18 digits, at least one
//! block. Whatever differs in the least gives `None`, and the line goes the general way, which gives the same row for
//! every line that is accepted here (a test compares them).

/// What such a line says, but for the block ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlainLine {
    pub(super) timestamp_ms: u64,
    pub(super) input_length: u64,
    pub(super) output_length: u64,
}

/// Reads a line and replaces `hash_ids`.
pub(super) fn scan(line: &[u8], hash_ids: &mut Vec<u64>) -> Option<PlainLine> {
    hash_ids.clear();
    let mut rest = Rest(line);
    rest.expect(b'{')?;
    let (mut timestamp, mut input, mut output) = (None, None, None);
    for field in 0..4 {
        if field > 0 {
            rest.expect(b',')?;
        }
        match rest.key()? {
            b"timestamp" => set(&mut timestamp, rest.number()?)?,
            b"input_length" => set(&mut input, rest.number()?)?,
            b"output_length" => set(&mut output, rest.number()?)?,
            b"hash_ids" if hash_ids.is_empty() => rest.numbers(hash_ids)?,
            _ => return None,
        }
    }
    rest.expect(b'}')?;
    rest.0.is_empty().then_some(())?;
    Some(PlainLine {
        timestamp_ms: timestamp?,
        input_length: input?,
        output_length: output?,
    })
}

fn set(field: &mut Option<u64>, value: u64) -> Option<()> {
    field.replace(value).is_none().then_some(())
}

/// The part of the line that is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    /// Takes `byte` and white space around it.
    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        self.skip_space();
        (first == byte).then_some(())
    }

    /// Takes a string without escapes and the colon behind it.
    fn key(&mut self) -> Option<&'a [u8]> {
        let inside = self.0.strip_prefix(b"\"")?;
        let len = inside.iter().position(|&byte| byte == b'"')?;
        self.0 = &inside[len + 1..];
        self.expect(b':')?;
        Some(&inside[..len])
    }

    /// Takes a whole number that has no fraction or exponent behind it.
    fn number(&mut self) -> Option<u64> {
        let (value, len) = match self.0.first_chunk().map(|chunk| up_to_eight_digits(*chunk)) {
            Some((value, len)) if len < 8 => (value, len),
            _ => up_to_eighteen_digits(self.0)?,
        };
        let is_plain = len == 1 || (len > 1 && self.0[0] != b'0');
        self.0 = &self.0[len..];
        let ends = matches!(
            self.0.first(),
            Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n')
        );
        (is_plain && ends).then_some(value)
    }

    /// Takes numbers of at most six digits, each with a comma and a space behind it, as far as there are such: eight bytes
    /// hold one with both.
    fn short_numbers(&mut self, values: &mut Vec<u64>) {
        const BEHIND: u16 = u16::from_le_bytes(*b", ");
        while let Some(&chunk) = self.0.first_chunk() {
            let (value, len) = up_to_eight_digits(chunk);
            let is_plain = len == 1 || ((2..=6).contains(&len) && chunk[0] != b'0');
            if !is_plain || (u64::from_le_bytes(chunk) >> (8 * len)) as u16 != BEHIND {
                return;
            }
            values.push(value);
            self.0 = &self.0[len + 2..];
        }
    }

    /// Takes a list of whole numbers, at least one.
    fn numbers(&mut self, values: &mut Vec<u64>) -> Option<()> {
        self.expect(b'[')?;
        loop {
            self.short_numbers(values);
            self.skip_space();
            values.push(self.number()?);
            if let [b',', b' ', rest @ ..] = self.0 {
                self.0 = rest;
                self.skip_space();
                continue;
            }
            self.skip_space();
            let (&next, rest) = self.0.split_first()?;
            self.0 = rest;
            match next {
                b',' => self.skip_space(),
                b']' => return Some(()),
                _ => return None,
            }
        }
    }
}

/// The number at the front of eight bytes and how many digits it has. All eight are worked on at once, as lanes of one
/// integer of which the lowest holds the first digit.
#[inline]
fn up_to_eight_digits(chunk: [u8; 8]) -> (u64, usize) {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let lanes = u64::from_le_bytes(chunk) ^ (0x30 * EACH);
    // The top bit of a lane says that it is above 9. A carry only reaches lanes behind the first such one.
    let others = (lanes.wrapping_add(0x76 * EACH) | lanes) & (0x80 * EACH);
    let len = others.trailing_zeros() as usize / 8;
    // Zeros in front make it eight digits; then pairs, fours and eights are joined.
    let digits = lanes.checked_shl(64 - 8 * len as u32).unwrap_or(0);
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    ((fours * 10_000 + (fours >> 32)) & 0xffff_ffff, len)
}

/// The number at the front and how many digits it has; `None` above 18, where it might not fit.
fn up_to_eighteen_digits(bytes: &[u8]) -> Option<(u64, usize)> {
    let len = bytes
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(bytes.len());
    let value = |digits: &[u8]| {
        digits
            .iter()
            .fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
    };
    (len <= 18).then(|| (value(&bytes[..len]), len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_line_is_read_in_any_order_and_spacing() {
        let row = PlainLine {
            timestamp_ms: 5,
            input_length: 600,
            output_length: 7,
        };
        for line in [
            r#"{"timestamp": 5, "input_length": 600, "output_length": 7, "hash_ids": [46, 47]}"#,
            r#"{"hash_ids":[46,47],"output_length":7,"input_length":600,"timestamp":5}"#,
            "\t{ \"hash_ids\" : [ 46\t,47 ] , \"output_length\":7 ,\"input_length\":600,\"timestamp\" :5 } ",
        ] {
            let mut ids = vec![1];
            assert_eq!(scan(line.as_bytes(), &mut ids), Some(row), "{line}");
            assert_eq!(ids, [46, 47]);
        }
    }

    #[test]
    fn numbers_of_all_lengths_are_read() {
        let mut text = String::new();
        for len in 1..=18 {
            text.push(char::from(b'0' + len % 10));
            let list = format!("[{text}, {text} ,{text}\t]         ");
            let mut ids = Vec::new();
            assert_eq!(Rest(list.as_bytes()).numbers(&mut ids), Some(()), "{list}");
            assert_eq!(ids, [text.parse::<u64>().unwrap(); 3]);
        }
        for list in [
            "[,1]",
            "[1, ]",
            "[1,]",
            "[1 , ]",
            "[1,,2]",
            "[1 2]",
            "[01]",
            "[1, 02]",
            "[1",
            "[1,",
            "[",
            "[1.0]",
            "[1e3]",
            "[123456789012345678901]",
        ] {
            assert_eq!(
                Rest(format!("{list}        ").as_bytes()).numbers(&mut Vec::new()),
                None,
                "{list}"
            );
        }
    }

    #[test]
    fn every_other_line_goes_the_general_way() {
        for line in [
            "",
            "{}",
            r#"{"timestamp": 5, "input_length": 600, "output_length": 7}"#,
            r#"{"timestamp": 5, "input_length": 600, "output_length": 7, "hash_ids": []}"#,
            r#"{"timestamp": 5.5, "input_length": 600, "output_length": 7, "hash_ids": [46, 47]}"#,
            r#"{"timestamp": -5, "input_length": 600, "output_length": 7, "hash_ids": [46, 47]}"#,
            r#"{"timestamp": 05, "input_length": 600, "output_length": 7, "hash_ids": [46, 47]}"#,
            r#"{"timestamp": 5, "timestamp": 5, "output_length": 7, "hash_ids": [46, 47]}"#,
            r#"{"timestamp": 5, "input_length": 600, "output_length": 7, "hash_ids": [46, 47,]}"#,
            r#"{"timestamp": 5, "input_length": 600, "output_length": 7, "hash_ids": [46, 47]} x"#,
            r#"{"timestamp": 5, "input_length": 600, "output_length": 7, "hash_ids": [46, 47], "a": 1}"#,
            r#"{"timestamp": 5, "input_length": 600, "output_length": 1234567890123456789, "hash_ids": [46]}"#,
            r#"{"timestamp": 5, "input_length": 600, "output_length": 7, "hash_ids": [46"#,
        ] {
            assert_eq!(scan(line.as_bytes(), &mut Vec::new()), None, "{line}");
        }
    }
}
