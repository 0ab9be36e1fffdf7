//! Presets of the operator's own, read once at the start: a provider that Bellwire does not know needs no new release.

use std::path::Path;

use bellwire_verify::Preset;

use crate::exit::{Exit, Failure};

/// Names that mean something else than a provider.
const RESERVED: [&str; 2] = ["generic-webhook", "cron"];

/// Every `*.toml` of the folder, in the order of their names. One with the id of a built-in preset takes its place.
///
/// # Errors
/// The file, its fault, and what to write instead.
pub fn read(folder: &Path) -> anyhow::Result<Vec<Preset>> {
    let wrong = |text: String| Failure::new(Exit::Config, text);
    let listed = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let listed = listed.map_err(|error| wrong(format!("presets_dir {}: {error}", folder.display())))?;
    let mut files: Vec<_> = listed.into_iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut presets: Vec<Preset> = Vec::new();
    for path in files {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(format!("{shown}: {error}")))?;
        let preset = Preset::parse(&shown, &text).map_err(|error| wrong(error.to_string()))?;
        if RESERVED.contains(&preset.id()) {
            return Err(wrong(format!("{shown}: the id {:?} is taken; choose another one", preset.id())).into());
        }
        if presets.iter().any(|known| known.id() == preset.id()) {
            return Err(wrong(format!("{shown}: another file of the folder has the id {:?} too; rename one", preset.id())).into());
        }
        presets.push(preset);
    }
    Ok(presets)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = include_str!("../../bellwire-verify/presets/github.toml");

    /// Broken: a preset of the operator's own is passed over in silence, or a faulty one is.
    #[test]
    fn presets_are_read_or_named_with_their_fault() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("own.toml", &OWN.replace("id = \"github\"", "id = \"own\""));
        write("README.md", "not a preset");
        let read_ids = || read(folder.path()).map(|presets| presets.iter().map(|p| p.id().to_owned()).collect::<Vec<_>>());
        assert_eq!(read_ids().unwrap(), ["own"]);
        write("second.toml", &OWN.replace("id = \"github\"", "id = \"own\""));
        assert!(read_ids().unwrap_err().to_string().contains("second.toml"));
        write("second.toml", &OWN.replace("id = \"github\"", "id = \"cron\""));
        assert!(read_ids().unwrap_err().to_string().contains("cron"));
        write("second.toml", "id = 7");
        assert!(read_ids().unwrap_err().to_string().contains("second.toml"));
        assert!(read(&folder.path().join("missing")).unwrap_err().to_string().contains("missing"));
    }
}
