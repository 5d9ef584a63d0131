//! Tables for people: no lines, so that they can be cut and searched, and colours where that helps.

use std::io::Write;
use std::time::Duration;

use cmdexec_core::job::{Command, JobSpec, Status};
use cmdexec_core::service::WorkerStatus;
use cmdexec_core::time::{Clock, SystemClock, Timestamp};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};

/// A table with these columns.
pub(crate) fn new(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|name| Cell::new(name).fg(Color::DarkGrey)));
    table
}

/// Prints a table.
pub(crate) fn print(mut table: Table) -> std::io::Result<()> {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut out = std::io::stdout().lock();
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// How long titles may be beside columns that take `others`: whatever the terminal has left.
pub(crate) fn room_for_titles(table: &Table, others: u16) -> usize {
    table.width().map_or(60, |width| usize::from(width.saturating_sub(others)).clamp(16, 60))
}

/// A job's status in its colour.
pub(crate) fn status(status: Status) -> Cell {
    let color = match status {
        Status::Completed => Color::Green,
        Status::Failed => Color::Red,
        Status::Running => Color::Cyan,
        Status::Cancelled | Status::Cancelling => Color::Yellow,
        Status::Queued | Status::Scheduled => Color::Reset,
    };
    Cell::new(status.as_str()).fg(color)
}

/// A worker's status in its colour.
pub(crate) fn worker_status(status: WorkerStatus) -> Cell {
    let color = match status {
        WorkerStatus::Idle => Color::Green,
        WorkerStatus::Busy => Color::Cyan,
        WorkerStatus::Draining => Color::Yellow,
        WorkerStatus::Offline | WorkerStatus::Error => Color::Red,
    };
    Cell::new(status.as_str()).fg(color)
}

/// What a job is called: its name, or the start of what it runs.
pub(crate) fn title(spec: &JobSpec, most: usize) -> String {
    let text = match (&spec.name, &spec.command) {
        (Some(name), _) => name.clone(),
        (None, Command::Shell(line)) => line.clone(),
        (None, Command::Argv(argv)) => argv.join(" "),
        (None, Command::Steps(lines)) => lines.join("; "),
    };
    cut(plain(&text).trim(), most)
}

/// Somebody else's text, which must not steer the reader's terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A number of bytes in the unit that fits.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(most - 1).collect();
    cut.push('…');
    cut
}

/// How long ago something was.
pub(crate) fn age(at: Timestamp) -> String {
    span(SystemClock.now().since(at))
}

/// A length of time in the unit that fits.
pub(crate) fn span(span: Duration) -> String {
    match span.as_secs() {
        0 => format!("{} ms", span.as_millis()),
        1..10 => format!("{:.1} s", span.as_secs_f64()),
        secs @ 10..120 => format!("{secs} s"),
        secs @ 120..7_200 => format!("{} min", secs / 60),
        secs @ 7_200..172_800 => format!("{} h", secs / 3_600),
        secs => format!("{} d", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_short_and_plain() {
        assert_eq!(title(&JobSpec::argv(["echo", "\x1b[2J\nx"]), 40), "echo  [2J x");
        assert_eq!(title(&JobSpec::shell("é".repeat(50)), 40).chars().count(), 40);
    }

    #[test]
    fn spans_read_well() {
        let said = |secs| span(Duration::from_secs_f64(secs));
        assert_eq!([said(0.25), said(2.34), said(75.0), said(900.0)], ["250 ms", "2.3 s", "75 s", "15 min"]);
    }
}
