//! `burn-lens demo` runs without any argument and writes a page that needs nothing else.

use std::fs;

use crate::support::{folder, json_in, ok_in};

#[test]
fn the_demonstration() {
    let folder = folder();
    let text = ok_in(folder.path(), &["demo"]);
    for said in ["Next token", "Induction heads", "Setting a head to zero", "wrote demo.html"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let html = fs::read_to_string(folder.path().join("demo.html")).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    assert_eq!(html.matches("class=\"attention\"").count(), 2);
    let html = html.replace("http://www.w3.org/2000/svg", ""); // a name, not an address
    for forbidden in ["http:", "https:", "src=", "<link"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn what_it_claims_is_so() {
    let folder = folder();
    let demo = json_in(folder.path(), &["demo", "--out", "page.html"]);
    assert!(folder.path().join("page.html").exists());
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    assert!(number(&demo["logit_difference"]) > 0.0, "the model knows who gets the drink: {demo}");
    let best = &demo["induction"][0];
    assert!(number(&best["score"]) > 0.3, "there is an induction head: {best}");
    let loss = |at: usize| number(&demo["ablations"][at]["loss"]);
    assert_eq!(demo["ablations"][1]["head"], best["head"]);
    assert!(loss(1) > loss(0) + 0.1, "without it the second copy is harder: {} and {}", loss(0), loss(1));
    assert!(loss(1) > loss(2), "more than without the other head: {} and {}", loss(1), loss(2));
}
