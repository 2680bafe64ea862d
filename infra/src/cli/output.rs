//! Standard output, for people and pipes.

use std::io::{ErrorKind, Write};

/// Prints a line. A reader that has seen enough (`| head`) ends the program quietly, as it does other tools.
pub fn print_line(text: &str) {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("crm: cannot write to standard output: {error}");
            std::process::exit(1);
        }
    }
}

/// Like `println!`, for output that may be piped.
macro_rules! out {
    ($($arg:tt)*) => { $crate::cli::output::print_line(&format!($($arg)*)) };
}

pub(crate) use out;

/// A text as a terminal may show it: control characters, and those that turn the direction of writing or have no width, are written out,
/// for a name must not move the cursor or hide behind another one.
pub fn visible(text: &str) -> String {
    let acts = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
    };
    let mut shown = String::new();
    for letter in text.chars() {
        match acts(letter) {
            true => shown.extend(letter.escape_unicode()),
            false => shown.push(letter),
        }
    }
    shown
}
