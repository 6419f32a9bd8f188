//! `burn-lens devices`

use burn_lens::tensor::{BackendInfo, backends};
use serde_json::json;

use crate::report::{Align, Report, table};

/// Every backend: whether this build holds it, and the devices that it reaches.
pub(crate) fn devices() -> Report {
    let backends = backends();
    let columns = [("--device", Align::Left), ("in this build", Align::Left), ("devices", Align::Left)];
    let rows: Vec<Vec<String>> = backends.iter().flat_map(rows).collect();
    let json = backends.iter().map(
        |backend| json!({ "name": backend.name, "compiled": backend.compiled, "devices": backend.devices }),
    );
    Report { text: table(&columns, &rows), json: json.collect() }
}

fn rows(backend: &BackendInfo) -> Vec<Vec<String>> {
    let row = |name: String, compiled: &str, device: String| vec![name, compiled.to_owned(), device];
    if !backend.compiled {
        return vec![row(backend.name.to_owned(), "no", format!("build with --features {}", backend.name))];
    }
    if backend.devices.is_empty() {
        return vec![row(backend.name.to_owned(), "yes", "none found".to_owned())];
    }
    let name =
        |index: usize| if index == 0 { backend.name.to_owned() } else { format!("{}:{index}", backend.name) };
    let devices = backend.devices.iter().enumerate();
    devices.map(|(index, device)| row(name(index), "yes", device.clone())).collect()
}
