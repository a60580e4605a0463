//! The log that engines read: `--log FILE --log-format json`, an object a line, as runc writes it.

use crate::Global;
use std::io::Write;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people
    #[default]
    Text,
    /// An object a line: level, msg, time
    Json,
}

/// Appends an error to the log, if there is one.
pub fn error(global: &Global, text: &str) {
    let Some(path) = &global.log else { return };
    let time = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    let line = match global.log_format {
        Format::Json => {
            serde_json::json!({ "level": "error", "msg": text, "time": time }).to_string()
        }
        Format::Text => format!("time={time:?} level=error msg={text:?}"),
    };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    // One write a line, so that lines of several runtimes do not mix.
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    if let Err(error) = written {
        eprintln!("terrarium: warning: write log {}: {error}", path.display());
    }
}
