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
