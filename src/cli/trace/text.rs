//! Numbers and tables for the terminal.

/// Digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with one decimal, or in groups where it is large.
pub fn real(number: f64) -> String {
    if number.abs() >= 1000.0 {
        grouped(number.round() as u64)
    } else {
        format!("{number:.1}")
    }
}

/// A share in per cent.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// Rows of cells: the first column to the left, the others to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let space = " ".repeat(width - cell.chars().count());
            line += &if column == 0 {
                format!("{cell}{space}")
            } else {
                format!("  {space}{cell}")
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A row of a table.
pub fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_in_threes() {
        assert_eq!(
            [0, 7, 999, 1000, 288_500, 1_234_567].map(grouped).join(" "),
            "0 7 999 1,000 288,500 1,234,567"
        );
        assert_eq!(
            [0.04, 999.94, 12_035.06].map(real).join(" "),
            "0.0 999.9 12,035"
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = [row(["a", "1,000"]), row(["long", "2"])];
        assert_eq!(table(&rows), "a     1,000\nlong      2\n");
    }
}
