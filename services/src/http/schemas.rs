//! JSON schemas of the commands.
