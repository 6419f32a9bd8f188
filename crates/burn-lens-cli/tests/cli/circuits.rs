//! `circuits`.

use std::path::Path;

use crate::support::{fails, folder, json_in, metadata, ok_in, read};

fn circuits(args: &[&str]) -> serde_json::Value {
    json_in(Path::new("."), &[&["circuits", "demo", "--show"], args].concat())
}

/// The induction head of the bundled model copies, and its keys read the head that attends to the
/// position before.
#[test]
fn the_circuit_of_the_bundled_model() {
    let copying = circuits(&["copying"]);
    let best = &copying["result"][0];
    assert_eq!([&best["layer"], &best["head"]], [1, 0]);
    assert!(best["full_ov"].as_f64().unwrap() > 0.99, "{best}");
    let attention = circuits(&["attention"]);
    let heads = attention["result"].as_array().unwrap();
    let previous = |head: &&serde_json::Value| head["previous_token"].as_f64().unwrap();
    let best = heads.iter().max_by(|a, b| previous(a).total_cmp(&previous(b))).unwrap();
    assert_eq!([&best["layer"], &best["head"]], [0, 0], "{attention}");
    let composition = circuits(&["composition", "--of", "K", "--top", "1"]);
    let pair = &composition["result"]["K"][0];
    assert_eq!([&pair["writer"], &pair["reader"]], ["L0H0", "L1H0"]);
    assert!(pair["z"].as_f64().unwrap() > 20.0 && composition["result"].get("Q").is_none());
    assert_eq!(
        copying["notes"][0],
        "the norms' weights are folded: ln1 and ln2 into what reads them, ln_final into W_U"
    );
    assert!(circuits(&["copying", "--raw"])["notes"][0].as_str().unwrap().contains("left out"));
}

#[test]
fn layers_and_heads_are_chosen() {
    let heads = circuits(&["norms", "--layer", "2"]);
    let heads = heads["result"].as_array().unwrap();
    assert!(heads.len() == 4 && heads.iter().all(|head| head["layer"] == 2));
    let one = circuits(&["eigenvalues", "--of", "OV", "--layer", "0", "--head", "3"]);
    let heads = one["result"]["heads"].as_array().unwrap();
    assert!(heads.len() == 1 && heads[0]["eigenvalues"].as_array().unwrap().len() == 32);
    let pairs = circuits(&["composition", "--of", "V", "--layer", "2", "--head", "1", "--top", "100"]);
    let pairs = pairs["result"]["V"].as_array().unwrap();
    assert!(pairs.len() == 8 && pairs.iter().all(|pair| pair["reader"] == "L2H1"), "{pairs:?}");
    let vectors = circuits(&["svd", "--of", "w_out", "--layer", "1", "--top", "3"]);
    let vectors = vectors["result"]["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 3);
    assert!(vectors[0]["value"].as_f64() >= vectors[1]["value"].as_f64());
    let top = vectors[0]["top"].as_array().unwrap();
    assert!(top[0]["value"].as_f64() > top[7]["value"].as_f64() && top[0]["token"].is_string());
}

#[test]
fn numbers_are_saved_and_pages_written() {
    let folder = folder();
    let (file, page) = (folder.path().join("c.safetensors"), folder.path().join("c.html"));
    let (file, page) = (file.to_str().unwrap(), page.to_str().unwrap());
    let check = |show: &[&str], tensor: &str, shape: &[usize]| {
        let args = [&["circuits", "demo", "--save", file, "--html", page, "--show"], show].concat();
        assert!(ok_in(folder.path(), &args).contains("wrote"), "{show:?}");
        assert_eq!(read(file)[tensor].shape, shape, "{show:?}");
        assert_eq!(metadata(file)["model"], "demo");
        let html = std::fs::read_to_string(page).unwrap();
        assert!(html.starts_with("<!doctype html>") && !html.contains("https:"), "{show:?}");
        html
    };
    assert!(check(&["copying"], "full_ov", &[3, 4]).contains("class=\"grid"));
    check(&["attention"], "previous_token", &[3, 4]);
    check(&["norms"], "qk", &[3, 4]);
    check(&["composition"], "composition.Q", &[3, 4, 3, 4]);
    assert!(
        check(&["eigenvalues", "--top", "2"], "full_OV.eigenvalues", &[3, 4, 32, 2])
            .contains("class=\"scatter\"")
    );
    check(&["svd", "--layer", "0", "--head", "0", "--top", "5"], "readout", &[267, 1, 5]);
}

#[test]
fn what_makes_no_sense_is_explained() {
    for (code, arguments, said) in [
        (2, &["--show", "eigen"][..], "possible values: copying, attention"),
        (2, &["--show", "norms", "--head", "1"], "--layer"),
        (1, &["--show", "norms", "--layer", "3"], "--layer 3 is outside 0..3"),
        (1, &["--show", "norms", "--layer", "0", "--head", "4"], "--head 4 is outside 0..4"),
        (1, &["--show", "norms", "--of", "OV"], "expected no --of"),
        (1, &["--show", "eigenvalues", "--of", "W_E"], "expected OV, QK, full_OV or full_QK"),
        (1, &["--show", "composition", "--of", "OV"], "none of `Q`, `K`, `V`"),
        (1, &["--show", "svd"], "--show svd needs --layer"),
        (1, &["--show", "svd", "--layer", "0"], "the singular vectors of a head needs --head"),
        (1, &["--show", "svd", "--of", "w_in", "--layer", "0", "--head", "0"], "belongs to the whole layer"),
        (1, &["--show", "svd", "--of", "w_gate", "--layer", "0"], "no weight `blocks.0.mlp.W_gate`"),
        (1, &["--show", "svd", "--of", "Win", "--layer", "0"], "none of `OV`, `w_in`"),
        (1, &["--show", "norms", "--html", "missing/page.html"], "there is no folder"),
    ] {
        let found = fails(code, Path::new("."), &[&["circuits", "demo"], arguments].concat());
        assert!(found.contains(said), "{arguments:?}: {found}");
    }
}
