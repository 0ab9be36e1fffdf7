//! What data cannot say: the few providers whose signed content takes a small program to put together. One file each.
//!
//! A hook only says what may have been signed. Comparing, keys and timestamps stay with the engine.

mod aws_sns;
mod contentful;
mod hook0;
mod hygraph;
mod inngest;
pub(crate) mod params;
mod plivo;
mod truelayer;
mod twilio;

use crate::Refusal;
use crate::place::Scope;

type Contents = fn(&Scope<'_, '_>) -> Result<Vec<Vec<u8>>, Refusal>;

/// One of the programs, by the name that preset files use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    contents: Contents,
}

const HOOKS: [(&str, Contents); 8] = [
    ("aws-sns", aws_sns::contents),
    ("contentful", contentful::contents),
    ("hook0", hook0::contents),
    ("hygraph", hygraph::contents),
    ("inngest", inngest::contents),
    ("plivo", plivo::contents),
    ("truelayer", truelayer::contents),
    ("twilio", twilio::contents),
];

impl Hook {
    pub(crate) const NAMES: [&str; 8] = {
        let mut names = [""; 8];
        let mut at = 0;
        while at < HOOKS.len() {
            names[at] = HOOKS[at].0;
            at += 1;
        }
        names
    };

    pub(crate) fn named(name: &str) -> Option<Self> {
        HOOKS.iter().find(|(known, _)| *known == name).map(|(_, contents)| Self { contents: *contents })
    }

    /// Everything that may have been signed, likeliest first; at most four.
    pub(crate) fn contents(&self, scope: &Scope<'_, '_>) -> Result<Vec<Vec<u8>>, Refusal> {
        (self.contents)(scope)
    }

    /// All of them refuse bodies that they do not cover.
    pub(crate) fn covers_body(&self) -> bool {
        true
    }
}
