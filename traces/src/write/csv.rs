//! Plain CSV: `arrival_s,input_tokens,output_tokens`, and `session_id` and `priority` where rows differ in them.

use std::io::{self, Write};

use super::decimal;
use crate::trace::Trace;

pub(super) fn write(trace: &Trace, out: &mut impl Write) -> io::Result<()> {
    let has_sessions = (trace.sessions as usize) < trace.rows.len();
    let has_priorities = trace.rows.iter().any(|row| row.priority != 0);
    let sessions = if has_sessions { ",session_id" } else { "" };
    let priorities = if has_priorities { ",priority" } else { "" };
    writeln!(
        out,
        "arrival_s,input_tokens,output_tokens{sessions}{priorities}"
    )?;
    for row in &trace.rows {
        write!(
            out,
            "{},{},{}",
            decimal(row.arrival.as_ns(), 9),
            row.input_tokens,
            row.output_tokens
        )?;
        if has_sessions {
            write!(out, ",{}", row.session)?;
        }
        if has_priorities {
            write!(out, ",{}", row.priority)?;
        }
        writeln!(out)?;
    }
    Ok(())
}
