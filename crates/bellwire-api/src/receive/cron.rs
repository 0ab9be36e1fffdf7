//! Sources that make their messages themselves, on a schedule: what must stand in their config.

use bellwire_core::Source;

pub const KIND: &str = "cron";

/// # Errors
/// The name in the config, and what is wrong with it.
pub fn check(source: &Source) -> Result<(), (&'static str, String)> {
    let text = |name| source.config.get(name).map(|secret| secret.expose());
    let schedule =
        text("schedule").ok_or(("schedule", "a schedule of five fields is needed, such as \"0 9 * * 1-5\"".to_owned()))?;
    bellwire_engine::cron::Schedule::parse(schedule, text("timezone")).map_err(|error| ("schedule", error))?;
    if text("payload").is_none() {
        return Err(("payload", "a payload is needed: what each message holds".to_owned()));
    }
    Ok(())
}
