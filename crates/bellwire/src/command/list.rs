//! What all lists and records share: the page arguments, the table, the JSON.

use clap::Args;
use serde_json::Value;

use crate::client::{Api, Call};
use crate::exit::Exit;
use crate::terminal;

/// Which page of a list.
#[derive(Clone, Debug, Args)]
pub struct PageArgs {
    /// Rows of a page, at most 250
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: u32,
    /// Where to go on: the `iterator` of the page before
    #[arg(long, value_name = "ITERATOR")]
    pub iterator: Option<String>,
    /// Print the server's answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// A column: its title, and the field it shows.
pub type Column = (&'static str, &'static str);

impl PageArgs {
    /// Asks for the page and prints it.
    ///
    /// # Errors
    /// The server's, or standard output is closed.
    pub async fn print(
        &self,
        api: &Api,
        path: &[&str],
        mut query: Vec<(&'static str, String)>,
        columns: &[Column],
    ) -> anyhow::Result<Exit> {
        query.push(("limit", self.limit.to_string()));
        query.extend(self.iterator.clone().map(|iterator| ("iterator", iterator)));
        let page = api.call(Call { method: "GET", path, query, ..Call::default() }).await?;
        if self.json {
            terminal::line(&serde_json::to_string_pretty(&page)?)?;
            return Ok(Exit::Ok);
        }
        let empty = Vec::new();
        let rows = page.get("data").and_then(Value::as_array).unwrap_or(&empty);
        let titles: Vec<_> = columns.iter().map(|(title, _)| *title).collect();
        let cells = rows
            .iter()
            .map(|row| columns.iter().map(|(_, field)| terminal::cell(row.get(*field).unwrap_or(&Value::Null))).collect());
        terminal::line(&terminal::table(&titles, cells))?;
        if page.get("done").and_then(Value::as_bool) == Some(false)
            && let Some(iterator) = page.get("iterator").and_then(Value::as_str)
        {
            eprintln!("more: --iterator {}", terminal::escaped(iterator));
        }
        Ok(Exit::Ok)
    }
}

/// Prints one object.
///
/// # Errors
/// Standard output is closed.
pub fn print_record(value: &Value, json: bool) -> anyhow::Result<Exit> {
    let text = if json { serde_json::to_string_pretty(value)? } else { terminal::record(value) };
    terminal::line(&text)?;
    Ok(Exit::Ok)
}

/// Asks for one object and prints it.
///
/// # Errors
/// The server's, or standard output is closed.
pub async fn get(api: &Api, path: &[&str], query: Vec<(&'static str, String)>, json: bool) -> anyhow::Result<Exit> {
    let value = api.call(Call { method: "GET", path, query, ..Call::default() }).await?;
    print_record(&value, json)
}

/// Creates one object and prints it.
///
/// # Errors
/// The server's, or standard output is closed.
pub async fn create(api: &Api, path: &[&str], body: &Value, json: bool) -> anyhow::Result<Exit> {
    let value = api.call(Call { method: "POST", path, body: Some(body.to_string()), ..Call::default() }).await?;
    print_record(&value, json)
}
